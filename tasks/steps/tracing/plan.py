"""The stages of question 4 for a config, as specs: a plan does not read the store."""

from collections.abc import Sequence
from dataclasses import dataclass

from configs.schema import Config, LabelNoise, Network
from configs.tracing import Lds, Tracing
from storage.specs import StageSpec
from tasks.steps.common.lottery import last_training, links_of
from tasks.steps.common.manifest import manifest_spec
from tasks.steps.common.question import Shared
from tasks.steps.tracing.aggregate import aggregate_spec
from tasks.steps.tracing.comparison import comparison_spec
from tasks.steps.tracing.counterfactual import counterfactual_spec, suspects_counterfactual_spec
from tasks.steps.tracing.datamodelling import datamodelling_spec
from tasks.steps.tracing.index import index_spec
from tasks.steps.tracing.influence import influence_spec
from tasks.steps.tracing.linked import check_linked
from tasks.steps.tracing.mislabel import mislabel_spec
from tasks.steps.tracing.projection import contributions_spec
from tasks.steps.tracing.queries import queries_spec
from tasks.steps.tracing.randomisation import randomisation_spec
from tasks.steps.tracing.retraining import left_out_spec, retraining_spec, same_order_spec
from tasks.steps.tracing.scores import COUNTERFACTUAL_SCORE, TRACIN_SCORE
from tasks.steps.tracing.suspects import suspects_spec
from tasks.steps.tracing.teachers import teachers_spec
from tasks.steps.tracing.tracin import suspects_tracin_spec, tracin_spec

PERMUTED = LabelNoise(share=1.0, kind="permute")


@dataclass(frozen=True)
class Projected:
    """One network and seed, with the stages that project its updates on queries."""

    network: str
    seed: int
    queries: StageSpec
    contributions: StageSpec

    @property
    def training(self) -> StageSpec:
        """Return the recorded training."""
        return self.contributions.inputs["network"]


@dataclass(frozen=True)
class Trace(Projected):
    """One network and seed of question 4, with the stages of its answer; a stage outside the config is None."""

    influence: StageSpec
    mislabel: StageSpec | None = None
    permuted: Projected | None = None
    randomisation: StageSpec | None = None
    retraining: StageSpec | None = None
    datamodelling: StageSpec | None = None
    same_order: StageSpec | None = None  # datamodelling with retrainings in the same order
    comparison: StageSpec | None = None
    suspects: StageSpec | None = None
    teachers: tuple[StageSpec, ...] = ()  # by contributions to logits, then by scores of the whole network
    n_suspects: int = 0  # on the page
    index: StageSpec | None = None
    aggregate: StageSpec | None = None

    @property
    def finals(self) -> Sequence[StageSpec]:
        """Return the stages that no other stage of the answer reads."""
        found = (
            *(self.influence, self.mislabel, self.randomisation, self.datamodelling),
            *(self.same_order, self.comparison, self.suspects, *self.teachers, self.index, self.aggregate),
        )
        return tuple(spec for spec in found if spec is not None)


def plan_tracing(config: Config, shared: Shared) -> Sequence[Trace]:
    """Return the stages of question 4 for each network and seed.

    Raises
    ------
    ValueError : a network does not record updates, or its data do not fit an evaluation; the message names the key
    """
    asked = config.tracing
    assert asked is not None
    for name in asked.networks:
        _check(name, config.networks[name], asked)
        if config.networks[name].updates is not None:
            check_linked(name, asked, shared.trainings[name, config.seeds[0]])
    found = [_trace(config, asked, shared, name, seed) for name in asked.networks for seed in _seeds(config, name)]
    if asked.evaluation.mislabel and not any(trace.mislabel for trace in found):
        raise ValueError(
            "tracing.evaluation.mislabel: expected a network that is trained on flipped labels, found none; "
            "set `noise: {share: 0.1}` in the data set of one"
        )
    return found


def _seeds(config: Config, name: str) -> Sequence[int]:
    """Return the seeds of a network's answers; one trained elsewhere has one."""
    return config.seeds if config.networks[name].updates is None else config.seeds[:1]


def _check(name: str, network: Network, asked: Tracing) -> None:
    """Raise ValueError unless a network can answer question 4."""
    if network.updates is not None:
        return
    train = network.train
    if train is None or train.record is None:
        raise ValueError(
            f"tracing.networks: expected recorded updates of {name!r}, found none; give it a training with `record`, "
            f"such as networks.{name}.train.record: {{kind: auto}}, or the archive of one elsewhere: "
            f"networks.{name}.updates: URL"
        )
    if asked.evaluation.randomisation and asked.queries.split == train.split:
        raise ValueError(
            "tracing.evaluation.randomisation: expected queries with their labels, found a split with permuted labels; "
            "take another split"
        )


def _flipped(config: Config, name: str) -> bool:
    """Return whether a network is trained on labels that are flipped on purpose."""
    learned = config.learned(name)
    assert learned is not None, name
    noise = config.data[learned[0]].noise
    return noise is not None and noise.kind == "flip" and learned[1] in noise.splits


def _projected(asked: Tracing, name: str, seed: int, queries: StageSpec, label: str) -> Projected:
    """Return the projections of the training of a network and seed on its queries."""
    training = queries.inputs["network"]
    contributions = contributions_spec(label, training, queries, asked)
    return Projected(name, seed, queries, contributions)


def _trace(config: Config, asked: Tracing, shared: Shared, name: str, seed: int) -> Trace:
    """Return the stages of one network and seed."""
    network, evaluation, training = config.networks[name], asked.evaluation, shared.trainings[name, seed]
    manifest = training.inputs["data"] if asked.queries.data is None else shared.manifests[asked.queries.data]
    queries = queries_spec(name, network, manifest, training, asked.queries)
    label = training.label if network.updates is not None else f"{name} seed {seed}"
    traced = _projected(asked, name, seed, queries, label)
    contributions = traced.contributions
    permuted = _permuted(config, asked, name, queries) if evaluation.randomisation else None
    retraining, again = _retrainings(queries, training, evaluation.lds)
    suspects = None if asked.suspects is None else suspects_spec(queries, training)
    aggregate = None if asked.derive.aggregate is None else aggregate_spec(training, asked)
    return Trace(
        name,
        seed,
        queries,
        contributions,
        influence=influence_spec(contributions, asked, aggregate),
        mislabel=mislabel_spec(contributions) if evaluation.mislabel and _flipped(config, name) else None,
        permuted=permuted,
        randomisation=None if permuted is None else randomisation_spec(contributions, permuted.contributions, asked),
        retraining=retraining,
        datamodelling=None if retraining is None else datamodelling_spec(contributions, retraining, asked),
        same_order=None if again is None else datamodelling_spec(contributions, again, asked),
        comparison=_comparison(asked, traced, retraining, again),
        suspects=suspects,
        teachers=() if suspects is None else _teachers(asked, suspects),
        n_suspects=asked.suspects or 0,
        index=None if asked.derive.index is None else index_spec(name, network, manifest, training, asked),
        aggregate=aggregate,
    )


def _teachers(asked: Tracing, suspects: StageSpec) -> tuple[StageSpec, ...]:
    """Return the stages of what taught the suspects otherwise, by each score that the config asks for."""
    found, count = [teachers_spec(suspects, {})], asked.suspects or 0
    if asked.counterfactual is not None:
        derived = suspects_counterfactual_spec(suspects, count, asked.counterfactual)
        found.append(teachers_spec(suspects, {COUNTERFACTUAL_SCORE: derived}))
    if TRACIN_SCORE in asked.scores:
        found.append(teachers_spec(suspects, {TRACIN_SCORE: suspects_tracin_spec(suspects, count, asked.tracin)}))
    return tuple(found)


def _retrainings(
    queries: StageSpec, training: StageSpec, asked: Lds | None
) -> tuple[StageSpec | None, StageSpec | None]:
    """Return the retrainings on subsets from new seeds, and in the same order, as far as they are asked for."""
    if asked is None:
        return None, None
    new = retraining_spec(queries, training, asked) if asked.order != "same" else None
    return new, same_order_spec(queries, training, asked) if asked.order != "new" else None


def _comparison(
    asked: Tracing, traced: Projected, retraining: StageSpec | None, again: StageSpec | None
) -> StageSpec | None:
    """Return the comparison of the scores of the whole network with baselines, where there is something to compare."""
    queries, training, evaluation = traced.queries, traced.training, asked.evaluation
    scores: dict[str, StageSpec] = {}
    tests = {role: spec for role, spec in (("retraining", retraining), ("same_order", again)) if spec is not None}
    if asked.counterfactual is not None:
        scores[COUNTERFACTUAL_SCORE] = counterfactual_spec(queries, training, asked.counterfactual)
        tests["left_out"] = left_out_spec(queries, training, asked.counterfactual)
    if "tracin" in asked.scores:
        scores[TRACIN_SCORE] = tracin_spec(queries, training, asked.tracin)
    if not scores and not tests and not evaluation.mislabel:
        return None
    return comparison_spec(queries, training, scores, tests)


def _permuted(config: Config, asked: Tracing, name: str, traced: StageSpec) -> Projected:
    """Return the projections of the network when trained on permuted labels, on the same queries."""
    network, trained, manifest = config.networks[name], traced.inputs["network"], traced.inputs["data"]
    seed = int(trained.parameters["seed"])
    assert network.train is not None
    data = network.train.data
    noise = PERMUTED.model_copy(update={"splits": (network.train.split,)})
    digests_in = manifest.place["digests_in"]
    shuffled = manifest_spec(f"{data} permuted", config.data[data].model_copy(update={"noise": noise}), digests_in)
    # what the first training reads besides its data does not depend on these labels
    given = {role: read for role, read in links_of(trained)[0].training.inputs.items() if role != "data"}
    training = last_training(f"{name} permuted", network, shuffled, seed, given)
    queried = shuffled if asked.queries.data in (None, data) else manifest
    queries = queries_spec(name, network, queried, training, asked.queries, same=traced)
    return _projected(asked, name, seed, queries, f"{name} permuted seed {seed}")
