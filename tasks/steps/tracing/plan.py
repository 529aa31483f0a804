"""The stages of question 4 for a config, as specs: a plan does not read the store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from configs.schema import AnyDataSet, Config, LabelNoise, Network
from configs.tracing import Lds, Tracing
from storage.specs import StageSpec
from tasks.steps.common.companions import IMAGES, WORDS
from tasks.steps.common.lottery import last_training
from tasks.steps.common.manifest import manifest_spec
from tasks.steps.common.question import Shared
from tasks.steps.tracing.comparison import comparison_spec
from tasks.steps.tracing.counterfactual import counterfactual_spec
from tasks.steps.tracing.datamodelling import datamodelling_spec
from tasks.steps.tracing.influence import influence_spec
from tasks.steps.tracing.mislabel import mislabel_spec
from tasks.steps.tracing.projection import contributions_spec
from tasks.steps.tracing.queries import queries_spec
from tasks.steps.tracing.randomisation import randomisation_spec
from tasks.steps.tracing.retraining import left_out_spec, retraining_spec, same_order_spec
from tasks.steps.tracing.scores import COUNTERFACTUAL_SCORE, TRACIN_SCORE
from tasks.steps.tracing.suspects import suspects_spec
from tasks.steps.tracing.teachers import teachers_spec
from tasks.steps.tracing.tracin import tracin_spec

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
    teachers: StageSpec | None = None
    n_suspects: int = 0  # on the page

    @property
    def finals(self) -> Sequence[StageSpec]:
        """Return the stages that no other stage of the answer reads."""
        found = (
            *(self.influence, self.mislabel, self.randomisation, self.datamodelling),
            *(self.same_order, self.comparison, self.suspects, self.teachers),
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
    found = [_trace(config, asked, shared, name, seed) for name in asked.networks for seed in config.seeds]
    if asked.evaluation.mislabel and not any(trace.mislabel for trace in found):
        raise ValueError(
            "tracing.evaluation.mislabel: expected a network that is trained on flipped labels, found none; "
            "set `noise: {share: 0.1}` in the data set of one"
        )
    return found


def _check(name: str, network: Network, asked: Tracing) -> None:
    """Raise ValueError unless a network can answer question 4."""
    if network.train is None or network.train.record is None:
        raise ValueError(
            f"tracing.networks: expected recorded updates of {name!r}, found none; give it a training with `record`, "
            f"such as networks.{name}.train.record: {{kind: auto}}"
        )
    train = network.train
    if asked.evaluation.randomisation and asked.queries.split == train.split:
        raise ValueError(
            "tracing.evaluation.randomisation: expected queries with their labels, found a split with permuted labels; "
            "take another split"
        )


def _flipped(network: Network, data: Mapping[str, AnyDataSet]) -> bool:
    """Return whether a network is trained on labels that are flipped on purpose."""
    assert network.train is not None
    noise = data[network.train.data].noise
    return noise is not None and noise.kind == "flip" and network.train.split in noise.splits


def _projected(
    network: Network, asked: Tracing, name: str, training: StageSpec, manifest: StageSpec, label: str
) -> Projected:
    """Return the projections of one training on the queries of a manifest."""
    queries = queries_spec(name, network, manifest, training, asked.queries)
    contributions = contributions_spec(label, training, queries, asked)
    return Projected(name, int(training.parameters["seed"]), queries, contributions)


def _trace(config: Config, asked: Tracing, shared: Shared, name: str, seed: int) -> Trace:
    """Return the stages of one network and seed."""
    network, evaluation, training = config.networks[name], asked.evaluation, shared.trainings[name, seed]
    manifest = training.inputs["data"] if asked.queries.data is None else shared.manifests[asked.queries.data]
    traced = _projected(network, asked, name, training, manifest, f"{name} seed {seed}")
    contributions, queries = traced.contributions, traced.queries
    permuted = _permuted(config, asked, name, training, manifest) if evaluation.randomisation else None
    retraining, again = _retrainings(queries, training, evaluation.lds)
    suspects = None if asked.suspects is None else suspects_spec(queries, training)
    return Trace(
        name,
        seed,
        queries,
        contributions,
        influence=influence_spec(contributions, asked),
        mislabel=mislabel_spec(contributions) if evaluation.mislabel and _flipped(network, config.data) else None,
        permuted=permuted,
        randomisation=None if permuted is None else randomisation_spec(contributions, permuted.contributions, asked),
        retraining=retraining,
        datamodelling=None if retraining is None else datamodelling_spec(contributions, retraining, asked),
        same_order=None if again is None else datamodelling_spec(contributions, again, asked),
        comparison=_comparison(asked, traced, retraining, again),
        suspects=suspects,
        teachers=None if suspects is None else teachers_spec(suspects),
        n_suspects=asked.suspects or 0,
    )


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
        scores[TRACIN_SCORE] = tracin_spec(queries, training)
    if not scores and not tests and not evaluation.mislabel:
        return None
    return comparison_spec(queries, training, scores, tests)


def _permuted(config: Config, asked: Tracing, name: str, trained: StageSpec, manifest: StageSpec) -> Projected:
    """Return the projections of the network when trained on permuted labels, on the same queries."""
    network, seed = config.networks[name], int(trained.parameters["seed"])
    assert network.train is not None
    data = network.train.data
    noise = PERMUTED.model_copy(update={"splits": (network.train.split,)})
    digests_in = manifest.place["digests_in"]
    shuffled = manifest_spec(f"{data} permuted", config.data[data].model_copy(update={"noise": noise}), digests_in)
    # vectors of images and words do not depend on labels
    given = {role: read for role, read in trained.inputs.items() if role in (IMAGES, WORDS)}
    training = last_training(f"{name} permuted", network, shuffled, seed, given)
    queried = shuffled if asked.queries.data in (None, data) else manifest
    return _projected(network, asked, name, training, queried, f"{name} permuted seed {seed}")
