"""Controls for Algorithm 1: other methods to pick k features per class."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tasks.decomposition.checks import Doubles, Floats, Positions, Seed, check_count, check_matrix, entropy


@dataclass(frozen=True, eq=False)
class Statistics:
    """The statistics that the controls pick from.

    Attributes
    ----------
    class_means : (C, d) float64, mean feature of each class's training images
    overall_mean : (d,) float64, mean feature of all training images
    weight : (C, d) float64, the head's
    ranking : (C, d) int64, all features of each class in the order of Algorithm 1 (`pick_sets` with k2 = d)
    """

    class_means: Doubles
    overall_mean: Doubles
    weight: Doubles
    ranking: Positions

    def __post_init__(self) -> None:
        shape = (len(self.weight), self.weight.shape[1])
        check_matrix("class_means", self.class_means, shape)
        check_matrix("weight", self.weight, shape)
        check_matrix("overall_mean", self.overall_mean[None], (1, shape[1]))
        if self.ranking.shape != shape:
            raise ValueError(f"ranking: expected shape {shape}, found {self.ranking.shape}")


class Control(Protocol):
    """A function from statistics and k to features (C, k) int64, best first: a smaller k gives a prefix.

    Equal scores are ordered by lower index. Only random draws read the seed.
    """

    def __call__(self, statistics: Statistics, k: int, *, seed: Seed = 0) -> Positions: ...


def pick_class_mean(statistics: Statistics, k: int, *, seed: Seed = 0) -> Positions:
    """Pick the features of largest class mean; parameters as in `Control`."""
    return _largest(statistics.class_means, k)


def pick_class_mean_minus_overall(statistics: Statistics, k: int, *, seed: Seed = 0) -> Positions:
    """Pick the features of largest class mean minus mean over all images; parameters as in `Control`."""
    return _largest(statistics.class_means - statistics.overall_mean, k)


def pick_weight(statistics: Statistics, k: int, *, seed: Seed = 0) -> Positions:
    """Pick the features of largest weight to the class's logit; parameters as in `Control`."""
    return _largest(statistics.weight, k)


def pick_abs_weight(statistics: Statistics, k: int, *, seed: Seed = 0) -> Positions:
    """Pick the features of largest weight by magnitude; parameters as in `Control`."""
    return _largest(np.abs(statistics.weight), k)


def pick_mean_times_weight(statistics: Statistics, k: int, *, seed: Seed = 0) -> Positions:
    """Pick the features that add most to the class's logit on average; parameters as in `Control`."""
    return _largest(statistics.class_means * statistics.weight, k)


def pick_histogram_and_weight(statistics: Statistics, k: int, *, seed: Seed = 0) -> Positions:
    """Pick in turn the next feature of Algorithm 1 and the next of largest weight, each feature once.

    Parameters
    ----------
    statistics, k, seed : as in `Control`

    Returns
    -------
    (C, k) int64

    Notes
    -----
    The paper combines both (its third try) but does not state how. Here ceil(k / 2) features come from the histogram.
    The rest have the largest weights (not magnitudes) among the others. A smaller k gives a prefix.
    """
    check_count("k", k, statistics.weight.shape[1])
    by_weight = _largest(statistics.weight, statistics.weight.shape[1])
    return np.array([_alternate(*orders, k) for orders in zip(statistics.ranking, by_weight, strict=True)])


def pick_random(statistics: Statistics, k: int, *, seed: Seed = 0) -> Positions:
    """Pick k features of each class uniformly, without replacement; parameters as in `Control`."""
    rng = np.random.default_rng(entropy(seed))
    return _largest(rng.random(statistics.weight.shape), k)


def _largest(scores: Floats, k: int) -> Positions:
    """Return the k largest of each row (C, d), equal scores by lower index."""
    check_count("k", k, scores.shape[1])
    return np.argsort(-scores, axis=1, kind="stable")[:, :k].copy()


def _alternate(first: Positions, second: Positions, k: int) -> list[int]:
    """Take k features in turn from two orders (d,), each feature once."""
    taken: dict[int, None] = {}
    orders = [iter(first.tolist()), iter(second.tolist())]
    while len(taken) < k:
        order = orders[len(taken) % 2]
        taken[next(feature for feature in order if feature not in taken)] = None
    return list(taken)


CONTROLS: dict[str, Control] = {
    "class-mean": pick_class_mean,
    "class-mean-minus-overall": pick_class_mean_minus_overall,
    "weight": pick_weight,
    "abs-weight": pick_abs_weight,
    "mean-times-weight": pick_mean_times_weight,
    "histogram-and-weight": pick_histogram_and_weight,
    "random": pick_random,
}
