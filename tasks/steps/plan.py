"""The order and the sizes of stages of all kinds."""

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from configs.cluster import Cluster
from configs.schema import Config
from configs.training import StartNetwork
from storage.specs import StageSpec
from storage.stores import Store
from tasks.cluster.clusters import check_cluster
from tasks.cluster.rejoining import ClusterError
from tasks.engine.step import Size
from tasks.steps.common.linked import linked_spec
from tasks.steps.common.lottery import last_training
from tasks.steps.common.manifest import manifest_spec
from tasks.steps.common.networks import check_device
from tasks.steps.common.question import Shared
from tasks.steps.common.snapshots import snapshot_specs
from tasks.steps.common.starts import check_trained_start
from tasks.steps.common.survey import PlanSurvey, network_id
from tasks.steps.common.training import TRAINING
from tasks.steps.concepts.diversity import diversity_inputs
from tasks.steps.questions import STEPS

__all__ = ["Shared", "plan_shared", "stage_sizes", "waves", "with_inputs", "without_trainings"]


def plan_shared(config: Config) -> Shared:
    """Return the stages that all questions share: specs only, without a look into a store.

    Raises
    ------
    ValueError, OSError : a file that is missing or cannot be used
    """
    keepers = [step.kind for step in STEPS.values() if step.keeps_content]
    manifests = {name: manifest_spec(name, data, keepers) for name, data in config.data.items()}
    trainings = _plan_trainings(config, manifests)
    snapshots = [
        stage
        for (name, _), spec in trainings.items()
        if (train := config.networks[name].train) is not None
        for stage in snapshot_specs(spec, train.snapshots)
    ]
    for name, network in config.networks.items():
        learned = config.learned(name)
        if network.updates is not None and learned is not None:
            spec = linked_spec(name, network, learned, manifests[learned[0]])
            trainings |= {(name, seed): spec for seed in config.seeds}
    return Shared(manifests, trainings, snapshots)


def _plan_trainings(config: Config, manifests: Mapping[str, StageSpec]) -> dict[tuple[str, int], StageSpec]:
    """Return the training of each network and seed, each after the one that it starts from."""
    trainings = dict[tuple[str, int], StageSpec]()
    for name in config.trainings_in_order():
        network = config.networks[name]
        train = network.train
        assert train is not None
        manifest = manifests[train.data]
        features, source = diversity_inputs(name, train, manifest), None
        if isinstance(train.start, StartNetwork):
            source = train.start.network
            check_trained_start(name, network, config.networks[source])
        for seed in config.seeds:
            start = {} if source is None else {"start": trainings[source, seed]}
            trainings[name, seed] = last_training(name, network, manifest, seed, {**features, **start})
    return trainings


def with_inputs(
    specs: Iterable[StageSpec], apart: Callable[[StageSpec], bool] = lambda _: False
) -> tuple[StageSpec, ...]:
    """Return stages and all stages that they read, each once, with inputs before their readers.

    Parameters
    ----------
    apart : stages to leave out, and with them what only they read
    """
    ordered, seen = dict[str, StageSpec](), set[int]()
    waiting = [(spec, False) for spec in reversed(list(specs))]
    while waiting:  # a loop, as a chain may be too long for recursion; keys of inputs are made first
        spec, inputs_done = waiting.pop()
        if inputs_done:
            ordered.setdefault(spec.path, spec)
        elif id(spec) not in seen and not apart(spec):
            seen.add(id(spec))
            waiting.append((spec, True))
            waiting.extend((read, False) for read in reversed(list(spec.inputs.values())))
    return tuple(ordered.values())


def without_trainings(specs: Iterable[StageSpec]) -> tuple[StageSpec, ...]:
    """Return stages and all stages that they read without trainings, which another process makes."""
    return with_inputs(specs, lambda spec: spec.stage == TRAINING.kind)


def waves(stages: Iterable[StageSpec], apart: Collection[str] = ()) -> Iterator[list[StageSpec]]:
    """Yield lists of stages of one kind whose inputs are complete, until all stages are done.

    A kind whose remaining stages are all ready comes first, so that stages of a kind are made together. A chain of
    stages of one kind is made one by one, and before what reads it.

    Parameters
    ----------
    stages : every stage once, with all stages that it reads, in any order
    apart : paths of stages that are read but not listed, since another process makes them

    Raises
    ------
    ValueError : stages that read each other, or a stage that reads one that is not listed
    """
    remaining, made = list(stages), set(apart)
    while remaining:
        ready: list[StageSpec] = []
        blocked: list[StageSpec] = []
        for spec in remaining:
            (ready if all(read.path in made for read in spec.inputs.values()) else blocked).append(spec)
        if not ready:
            raise ValueError(f"{remaining[0].title}: expected all inputs among the stages before it, found one missing")
        later: dict[str, set[str]] = {}  # kinds that blocked stages of a kind wait for
        for spec in blocked:
            waits = {read.stage for read in spec.inputs.values() if read.path not in made}
            later.setdefault(spec.stage, set()).update(waits)
        kinds = [spec.stage for spec in ready]
        whole = (kind for kind in kinds if kind not in later)
        chains = (kind for kind in kinds if later.get(kind) == {kind})
        kind = next(itertools.chain(whole, chains, kinds))
        wave = [spec for spec in ready if spec.stage == kind]
        yield wave
        made |= {spec.path for spec in wave}
        remaining = [spec for spec in remaining if spec.path not in made]


def stage_sizes(cluster: Cluster, store: Store | None, stages: Sequence[StageSpec]) -> dict[str, Size]:
    """Return the size of every stage, by path, after checking that the cluster is possible.

    Raises
    ------
    ValueError : data or networks are unusable or do not fit each other; names the config's key
    """
    check_device(cluster)
    try:
        check_cluster(cluster)
    except ClusterError as error:
        raise ValueError(str(error)) from error
    survey, by_network = PlanSurvey(store), dict[str, list[StageSpec]]()
    for spec in stages:  # stages of one network in succession: the survey keeps only the last network
        by_network.setdefault(_network(spec), []).append(spec)
    sizes = {}
    for network, found in by_network.items():
        for spec in found:
            sizes[spec.path] = STEPS[spec.stage].size(spec, survey)
        if undone := survey.undone.get(network):
            spec = next(spec for spec in found if "weights" in spec.place)
            line = f"networks.{spec.place['network']}.weights: {spec.place['weights']} fits by its {undone}"
            sizes[spec.path] = replace(sizes[spec.path], note=line)
    return sizes


def _network(spec: StageSpec) -> str:
    """Return an identity of the network and the data set that a stage's size depends on; "" for none."""
    if "network" in spec.parameters and "data" in spec.inputs:
        return network_id(spec)
    return next((found for read in spec.inputs.values() if (found := _network(read))), "")
