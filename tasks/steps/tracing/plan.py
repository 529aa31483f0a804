"""The stages of question 4 for a config: specs only, no store is asked."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from configs.schema import AnyDataSet, Config, LabelNoise, Network
from configs.tracing import Tracing
from storage.specs import StageSpec
from tasks.steps.common.manifest import manifest_spec
from tasks.steps.common.training import training_spec
from tasks.steps.tracing.datamodelling import datamodelling_spec
from tasks.steps.tracing.influence import influence_spec
from tasks.steps.tracing.mislabel import mislabel_spec
from tasks.steps.tracing.projection import contributions_spec
from tasks.steps.tracing.queries import queries_spec
from tasks.steps.tracing.randomisation import randomisation_spec
from tasks.steps.tracing.retraining import retraining_spec

PERMUTED = LabelNoise(share=1.0, kind="permute")


@dataclass(frozen=True)
class Projected:
    """One network and seed, and the stages that project its updates on queries: all that a comparison needs."""

    network: str
    seed: int
    queries: StageSpec
    contributions: StageSpec

    @property
    def training(self) -> StageSpec:
        """The recorded training."""
        return self.contributions.inputs["network"]

    @property
    def stages(self) -> tuple[StageSpec, ...]:
        """All stages, in the order in which they can run."""
        return (self.training.inputs["data"], self.training, self.queries, self.contributions)


@dataclass(frozen=True)
class Trace(Projected):
    """One network and seed of question 4, and the stages behind the answer; None where it was not asked."""

    influence: StageSpec
    mislabel: StageSpec | None = None
    permuted: Projected | None = None
    randomisation: StageSpec | None = None
    retraining: StageSpec | None = None
    datamodelling: StageSpec | None = None

    @property
    def stages(self) -> tuple[StageSpec, ...]:
        """All stages, in the order in which they can run."""
        other = () if self.permuted is None else self.permuted.stages
        rest = (self.randomisation, self.retraining, self.datamodelling)
        own = (self.influence, *((self.mislabel,) if self.mislabel else ()))
        return (*super().stages, *own, *other, *(s for s in rest if s))


def make_traces(
    config: Config, manifests: Mapping[str, StageSpec], trainings: Mapping[tuple[str, int], StageSpec]
) -> tuple[Trace, ...]:
    """Return what question 4 asks of each network and seed.

    Raises
    ------
    ValueError : a network that records no updates, or a check that its data cannot give; names the config's key
    """
    asked = config.tracing
    if asked is None:
        return ()
    found = tuple(_traces(config, asked, manifests, trainings))
    if asked.evaluation.mislabel and not any(trace.mislabel for trace in found):
        raise ValueError(
            "tracing.evaluation.mislabel: none of the networks is trained on flipped labels; "
            "set `noise: {share: 0.1}` in the data set of one"
        )
    return found


def _traces(
    config: Config,
    asked: Tracing,
    manifests: Mapping[str, StageSpec],
    trainings: Mapping[tuple[str, int], StageSpec],
) -> Iterator[Trace]:
    """Yield a trace per network and seed."""
    for name in asked.networks:
        network = config.networks[name]
        data = _check(name, network, asked)
        manifest = manifests[asked.queries.data or data]
        for seed in config.seeds:
            training = trainings[name, seed]
            yield _trace(config, asked, name, seed, (manifest, training))


def _check(name: str, network: Network, asked: Tracing) -> str:
    """Return the name of a network's training data, after checking that the network can answer."""
    if network.train is None or network.train.record is None:
        raise ValueError(
            f"tracing.networks: {name!r} records no updates; give it a training with `record`, "
            f"such as networks.{name}.train.record: {{kind: auto}}"
        )
    train = network.train
    if asked.evaluation.randomisation and asked.queries.split == train.split:
        raise ValueError("tracing.evaluation.randomisation: the queries' labels would be permuted; take another split")
    return train.data


def _flipped(network: Network, data: Mapping[str, AnyDataSet]) -> bool:
    """Say whether labels that a network is trained on are flipped on purpose."""
    assert network.train is not None
    noise = data[network.train.data].noise
    return noise is not None and noise.kind == "flip" and network.train.split in noise.splits


def _projected(
    config: Config, asked: Tracing, name: str, seed: int, given: tuple[StageSpec, StageSpec], *, also: str = ""
) -> Projected:
    """Return the projections of one training; `given` are the queries' manifest and the training."""
    manifest, training = given
    queries = queries_spec(name, config.networks[name], manifest, training, asked.queries)
    return Projected(name, seed, queries, contributions_spec(f"{name}{also} seed {seed}", training, queries, asked))


def _trace(config: Config, asked: Tracing, name: str, seed: int, given: tuple[StageSpec, StageSpec]) -> Trace:
    """Return the stages of one network and seed; `given` as in `_projected`."""
    manifest, training = given
    network, evaluation = config.networks[name], asked.evaluation
    own = _projected(config, asked, name, seed, given)
    queries, contributions = own.queries, own.contributions
    other = _permuted(config, asked, name, seed, manifest) if evaluation.randomisation else None
    retraining = None if evaluation.lds is None else retraining_spec(queries, training, evaluation.lds)
    return Trace(
        name,
        seed,
        queries,
        contributions,
        influence_spec(contributions, asked),
        mislabel_spec(contributions) if evaluation.mislabel and _flipped(network, config.data) else None,
        other,
        None if other is None else randomisation_spec(contributions, other.contributions, asked),
        retraining,
        None if retraining is None else datamodelling_spec(contributions, retraining, asked),
    )


def _permuted(config: Config, asked: Tracing, name: str, seed: int, manifest: StageSpec) -> Projected:
    """Return the projections of the same network, trained on permuted labels, on the same queries."""
    network = config.networks[name]
    assert network.train is not None
    data = network.train.data
    noise = PERMUTED.model_copy(update={"splits": (network.train.split,)})
    shuffled = manifest_spec(f"{data} permuted", config.data[data].model_copy(update={"noise": noise}))
    own = asked.queries.data in (None, data)
    training = training_spec(f"{name} permuted", network, shuffled, seed)
    given = shuffled if own else manifest, training
    return _projected(config, asked, name, seed, given, also=" permuted")
