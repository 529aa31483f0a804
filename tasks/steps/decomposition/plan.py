"""The stages of question 2 for a config, as specs: a plan does not read the store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import get_args

from configs.decomposition import Coverage, Decomposition
from configs.schema import Config, Network
from storage.specs import StageSpec
from tasks.decomposition import CONTROLS
from tasks.steps.common.question import Shared
from tasks.steps.decomposition.ablation import ablation_spec
from tasks.steps.decomposition.cost import cost_spec
from tasks.steps.decomposition.coverage import coverage_spec
from tasks.steps.decomposition.decomposed_training import Scope, decomposed_training_spec
from tasks.steps.decomposition.feature_images import feature_images_spec
from tasks.steps.decomposition.feature_pictures import feature_pictures_spec
from tasks.steps.decomposition.features import penultimate_spec
from tasks.steps.decomposition.gallery import decomposition_gallery_spec
from tasks.steps.decomposition.gates import gates_spec
from tasks.steps.decomposition.histogram import histogram_spec
from tasks.steps.decomposition.scores import HISTOGRAM, full_spec, gates_scores_spec, scores_spec

Grid = tuple[str, int]  # k1 as text, k2
Change = tuple[str, str]  # noise, scope


@dataclass(frozen=True)
class Decomposed:
    """One network and seed of question 2, with the stages of its answer.

    Attributes
    ----------
    learn, evaluate : penultimate features
    histograms : histograms by k1 as text, the main one first
    need : histograms of the first n images of each class, by n
    full : scores of the full head
    grid : scores by (k1, k2), those of the main setting first
    controls : scores of other choices of the main k2, by name
    need_scores : scores of the main k2 of `need`, by n
    ablations : ablations by (noise, scope)
    retrained : trainings by scope, head or network
    pictures : the most activating images of the features, None for seeds after the first
    held_out : whether these images come from a split that neither the sets nor any network of the config learned from
    """

    network: str
    seed: int
    learn: StageSpec
    evaluate: StageSpec
    histograms: Mapping[str, StageSpec]
    need: Mapping[int, StageSpec]
    full: StageSpec
    grid: Mapping[Grid, StageSpec]
    controls: Mapping[str, StageSpec]
    need_scores: Mapping[int, StageSpec]
    coverage: StageSpec
    cost: StageSpec
    ablations: Mapping[Change, StageSpec] = field(default_factory=dict)
    retrained: Mapping[str, StageSpec] = field(default_factory=dict)
    gallery: StageSpec | None = None
    gates: StageSpec | None = None
    gates_scores: StageSpec | None = None
    pictures: StageSpec | None = None
    held_out: bool = False

    @property
    def histogram(self) -> StageSpec:
        """Return the histogram of the main k1."""
        return next(iter(self.histograms.values()))

    @property
    def finals(self) -> Sequence[StageSpec]:
        """Return the stages that no other stage of the answer reads."""
        scored = (self.full, *self.grid.values(), *self.controls.values(), *self.need_scores.values())
        rest = (*self.ablations.values(), *self.retrained.values(), self.gates_scores, self.coverage, self.cost)
        return tuple(spec for spec in (*scored, *rest, self.gallery, self.pictures) if spec is not None)


def shown_k1(k1: int | Coverage) -> str:
    """Return k1 as text for tables."""
    return f"coverage {k1.coverage}" if isinstance(k1, Coverage) else str(k1)


def plan_decomposition(config: Config, shared: Shared) -> Sequence[Decomposed]:
    """Return the stages of question 2 for each network and seed; networks with given weights have one seed.

    Raises
    ------
    ValueError : weights that cannot be read
    """
    asked = config.decomposition
    assert asked is not None
    return [
        _with_pictures(config, _decomposed(asked, _network(config, asked, shared, name, seed)))
        for name in asked.networks
        for seed in (config.seeds if config.networks[name].train is not None else config.seeds[:1])
    ]


def _with_pictures(config: Config, answer: Decomposed) -> Decomposed:
    """Return an answer with the most activating images of its features, if it is that of the first seed.

    The images come from the split that the sets come from, if the report may show it; else from the held-out split.
    """
    asked = config.decomposition
    assert asked is not None
    if answer.seed != config.seeds[0]:
        return answer
    features = answer.learn if config.report.training_images == "show" else answer.evaluate
    images = feature_images_spec(features, answer.histogram, asked.k2[0])
    learned = {asked.learn, *(network.train.split for network in config.networks.values() if network.train)}
    held_out = features.parameters["split"] not in learned
    return replace(answer, pictures=feature_pictures_spec(images), held_out=held_out)


@dataclass(frozen=True)
class _Network:
    """The inputs of the stages of one network and seed.

    Attributes
    ----------
    data : name of the data set
    training : stage of the network's training, None if its weights are given
    """

    name: str
    seed: int
    network: Network
    data: str
    training: StageSpec | None
    learn: StageSpec
    evaluate: StageSpec

    @property
    def gated(self) -> bool:
        """Return whether its training learns gates."""
        return self.network.train is not None and self.network.train.gates is not None


def _network(config: Config, asked: Decomposition, shared: Shared, name: str, seed: int) -> _Network:
    """Return one network and seed with its penultimate features."""
    network, data = config.networks[name], config.data_of(name, "decomposition")
    manifest, training = shared.manifests[data], shared.trainings.get((name, seed))
    features = partial(penultimate_spec, name, network, manifest, training, dtype=asked.dtype)
    learn, evaluate = features(split=asked.learn), features(split=asked.evaluate)
    return _Network(name, seed, network, data, training, learn, evaluate)


def _decomposed(asked: Decomposition, network: _Network) -> Decomposed:
    """Return the stages of one network and seed."""
    learn, evaluate, k2 = network.learn, network.evaluate, asked.k2[0]
    counts = {shown_k1(k1): k1.coverage if isinstance(k1, Coverage) else k1 for k1 in asked.k1}
    count = partial(histogram_spec, learn, rank_by=asked.rank_by, group_by=asked.group_by)
    histograms = {shown: count(k1) for shown, k1 in counts.items()}
    first, main = next(iter(histograms.items()))
    need = {n: count(counts[first], limit=n) for n in asked.sample_need}
    gates = gates_spec(network.training, asked.learn, k2) if network.training is not None and network.gated else None
    return Decomposed(
        network=network.name,
        seed=network.seed,
        learn=learn,
        evaluate=evaluate,
        histograms=histograms,
        need=need,
        full=full_spec(evaluate),
        grid={(shown, k): scores_spec(evaluate, h, HISTOGRAM, k) for shown, h in histograms.items() for k in asked.k2},
        controls={kind: scores_spec(evaluate, main, kind, k2, draws=asked.draws) for kind in CONTROLS},
        need_scores={n: scores_spec(evaluate, found, HISTOGRAM, k2) for n, found in need.items()},
        coverage=coverage_spec(main, k2),
        cost=cost_spec(evaluate, main, k2),
        ablations=_ablations(asked, evaluate, main),
        retrained=_retrained(asked, network, main),
        gallery=decomposition_gallery_spec(evaluate, main, k2, asked.gallery) if asked.gallery else None,
        gates=gates,
        gates_scores=None if gates is None else gates_scores_spec(evaluate, gates, k2),
    )


def _ablations(asked: Decomposition, evaluate: StageSpec, main: StageSpec) -> dict[Change, StageSpec]:
    """Return the ablations, by noise and scope."""
    if (ablation := asked.ablation) is None:
        return {}
    return {
        (noise, scope): ablation_spec(evaluate, main, asked.k2[0], noise=noise, scope=scope, draws=ablation.draws)
        for noise in ablation.noises
        for scope in ablation.scopes
    }


def _retrained(asked: Decomposition, network: _Network, main: StageSpec) -> dict[str, StageSpec]:
    """Return the trainings after the decomposition, by scope."""
    settings = {scope: getattr(asked.retraining, scope) for scope in get_args(Scope)}
    return {
        scope: decomposed_training_spec(
            name=network.name,
            network=network.network,
            training=network.training,
            histogram=main,
            k2=asked.k2[0],
            features={"learn": network.learn, "evaluate": network.evaluate},
            train=course.training(network.data, asked.learn, asked.evaluate),
            scope=scope,
            seed=network.seed,
        )
        for scope, course in settings.items()
        if course is not None
    }
