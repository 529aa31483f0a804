"""The stages of question 2 for a config: specs only, no store is asked."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import get_args

from configs.decomposition import Coverage, Decomposition
from configs.schema import Config
from storage.specs import StageSpec
from tasks.decomposition import CONTROLS
from tasks.steps.decomposition.ablation import ablation_spec
from tasks.steps.decomposition.cost import cost_spec
from tasks.steps.decomposition.coverage import coverage_spec
from tasks.steps.decomposition.decomposed_training import Scope, decomposed_training_spec
from tasks.steps.decomposition.features import penultimate_spec
from tasks.steps.decomposition.gallery import decomposition_gallery_spec
from tasks.steps.decomposition.gates import gates_spec
from tasks.steps.decomposition.histogram import histogram_spec
from tasks.steps.decomposition.scores import HISTOGRAM, full_spec, gates_scores_spec, scores_spec

Grid = tuple[str, int]  # k1 as it is shown, k2
Way = tuple[str, str]  # noise, scope


@dataclass(frozen=True)
class Decomposed:
    """One network and seed of question 2, and the stages behind the answer.

    Attributes
    ----------
    learn, evaluate : penultimate features
    histograms : by k1 as it is shown, the main one first
    need : histograms of the first n images of each class, by n
    full : scores of the full head
    grid : scores by (k1, k2), the main ones first
    controls : scores of other choices of the main k2, by name
    need_scores : scores of the main k2 of `need`, by n
    ablations : by (noise, scope)
    retrained : by scope, head or network
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
    ablations: Mapping[Way, StageSpec] = field(default_factory=dict)
    retrained: Mapping[str, StageSpec] = field(default_factory=dict)
    gallery: StageSpec | None = None
    gates: StageSpec | None = None
    gates_scores: StageSpec | None = None

    @property
    def histogram(self) -> StageSpec:
        """The histogram of the main k1."""
        return next(iter(self.histograms.values()))

    @property
    def all_histograms(self) -> tuple[StageSpec, ...]:
        """The histograms of all settings."""
        return (*self.histograms.values(), *self.need.values())

    @property
    def all_scores(self) -> tuple[StageSpec, ...]:
        """The scores of all heads."""
        scored = (*self.grid.values(), *self.controls.values(), *self.need_scores.values())
        return (self.full, *scored, *([self.gates_scores] if self.gates_scores is not None else []))

    @property
    def stages(self) -> tuple[StageSpec, ...]:
        """All stages, in the order in which they can run."""
        counted = (stage for found in self.all_histograms for stage in (found.inputs["strongest"], found))
        rest = (*self.ablations.values(), *self.retrained.values(), self.gallery)
        gates = () if self.gates is None else (self.gates,)
        chain = (self.learn, self.evaluate, *counted, *gates, *self.all_scores, self.coverage, self.cost, *rest)
        return tuple(spec for spec in chain if spec is not None)


def shown_k1(k1: int | Coverage) -> str:
    """Return k1 as tables show it."""
    return f"coverage {k1.coverage}" if isinstance(k1, Coverage) else str(k1)


def make_decompositions(
    config: Config, manifests: Mapping[str, StageSpec], trainings: Mapping[tuple[str, int], StageSpec]
) -> tuple[Decomposed, ...]:
    """Return what question 2 asks of each network and seed; networks with given weights have one seed.

    Raises
    ------
    ValueError : weights that cannot be read
    """
    asked = config.decomposition
    return () if asked is None else tuple(_decompositions(config, asked, manifests, trainings))


def _decompositions(
    config: Config,
    asked: Decomposition,
    manifests: Mapping[str, StageSpec],
    trainings: Mapping[tuple[str, int], StageSpec],
) -> Iterator[Decomposed]:
    """Yield one network and seed after the other."""
    for name in asked.networks:
        network, data = config.networks[name], config.data_of(name, "decomposition")
        for seed in config.seeds if network.train is not None else config.seeds[:1]:
            training = trainings.get((name, seed))
            learn, evaluate = (
                penultimate_spec(name, network, manifests[data], training, split=split, dtype=asked.dtype)
                for split in (asked.learn, asked.evaluate)
            )
            yield _decomposed(config, asked, (name, seed), (learn, evaluate), (data, training))


def _decomposed(
    config: Config,
    asked: Decomposition,
    setting: tuple[str, int],
    splits: tuple[StageSpec, StageSpec],
    given: tuple[str, StageSpec | None],
) -> Decomposed:
    """Return the stages of one network and seed; `given` are the data set's name and the network's training."""
    (name, seed), (learn, evaluate), (_, training) = setting, splits, given
    counts = {shown_k1(k1): k1.coverage if isinstance(k1, Coverage) else k1 for k1 in asked.k1}
    count = partial(histogram_spec, learn, rank_by=asked.rank_by, group_by=asked.group_by)
    histograms = {shown: count(k1) for shown, k1 in counts.items()}
    (first, main), k2 = next(iter(histograms.items())), asked.k2[0]
    need = {n: count(counts[first], limit=n) for n in asked.sample_need}
    train = config.networks[name].train
    gated = training is not None and train is not None and train.gates is not None
    gates = gates_spec(training, asked.learn, k2) if training is not None and gated else None
    return Decomposed(
        network=name,
        seed=seed,
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
        retrained=_retrained(config, asked, setting, splits, given, main),
        gallery=decomposition_gallery_spec(evaluate, main, k2, asked.gallery) if asked.gallery else None,
        gates=gates,
        gates_scores=None if gates is None else gates_scores_spec(evaluate, gates, k2),
    )


def _ablations(asked: Decomposition, evaluate: StageSpec, main: StageSpec) -> dict[Way, StageSpec]:
    """Return the ablations, by noise and scope."""
    if (ablation := asked.ablation) is None:
        return {}
    k2, draws = asked.k2[0], ablation.draws
    return {
        (noise, scope): ablation_spec(evaluate, main, k2, noise=noise, scope=scope, draws=draws)
        for noise in ablation.noises
        for scope in ablation.scopes
    }


def _retrained(
    config: Config,
    asked: Decomposition,
    setting: tuple[str, int],
    splits: tuple[StageSpec, StageSpec],
    given: tuple[str, StageSpec | None],
    main: StageSpec,
) -> dict[str, StageSpec]:
    """Return the trainings after the decomposition, by scope."""
    name, seed = setting
    found = {}
    for scope in get_args(Scope):
        settings = getattr(asked.retraining, scope)
        if settings is not None:
            train = settings.training(given[0], asked.learn, asked.evaluate)
            features = {"learn": splits[0], "evaluate": splits[1]}
            found[scope] = decomposed_training_spec(
                name, config.networks[name], given[1], main, asked.k2[0], features, train, scope, seed
            )
    return found
