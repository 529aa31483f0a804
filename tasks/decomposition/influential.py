"""The influential features of every class (Badola et al., Algorithm 1), for features that fit in memory."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.decomposition.checks import Floats, Positions, check_classes, check_count, check_features
from tasks.decomposition.histogram import Cell, FeatureHistogram
from tasks.decomposition.ranking import RankBy


@dataclass(frozen=True, eq=False)
class InfluentialFeatures:
    """The features that are most often in the top-k1 of each class's images.

    Attributes
    ----------
    indices : (C, k2) int64, by falling count, then falling class sum of |x|, then rising index
    counts : (C, d) int64, images of the class with a feature in their top-k1
    tie_at_cut : (C,) bool, the k2-th count equals the next one; False where k2 = d
    signed : whether some feature is below 0; ranked by magnitude, it may lower the logit of its class
    """

    indices: Positions
    counts: Positions
    tie_at_cut: NDArray[np.bool_]
    signed: bool


def influential_features(
    features: Floats,
    labels: NDArray[np.integer],
    k1: int | float,
    k2: int,
    n_classes: int,
    *,
    rank_by: RankBy = "abs",
    weight: Floats | None = None,
) -> InfluentialFeatures:
    """Find the k2 features that are most often in the top-k1 of a class's images.

    Parameters
    ----------
    features : (n, d) float of any width, finite: the inputs of the head in evaluation mode
    labels : (n,) integer, 0..C-1: labels or predictions
    k1 : features per image, 1..d; a float in (0, 1] is the share of each image's l1 norm that they cover
    k2 : features per class, 1..d; features that are never in a top-k1 are ordered by sums of |x|, then by index
    n_classes : C
    rank_by : "abs" |x_j|, "value" x_j, "contribution" W[label, j] x_j; equal values of an image by lower index
    weight : (C, d) float, the head's; read for "contribution" only

    Returns
    -------
    InfluentialFeatures; a class without images has counts of 0. A smaller k2 gives prefixes of the sets.

    Notes
    -----
    `FeatureHistogram` does the same for features in chunks.
    """
    n_features = check_features(features).shape[1]
    check_count("n_classes", n_classes)
    check_count("k2", k2, n_features)
    check_classes("labels", labels, len(features), n_classes)
    histogram = FeatureHistogram(n_classes, n_features, [Cell(k1)], rank_by=rank_by, weight=weight)
    histogram.update(features, labels)
    counts = histogram.counts[0]
    indices, tie_at_cut = pick_sets(counts, histogram.absolute_sums(), k2)
    return InfluentialFeatures(indices, counts, tie_at_cut, histogram.signed)


def pick_sets(counts: Positions, sums: Floats, k2: int) -> tuple[Positions, NDArray[np.bool_]]:
    """Pick each class's k2 most frequent features.

    Parameters
    ----------
    counts : (C, d) integer
    sums : (C, d) float, class sums of |x|: among equal counts the larger sum comes first, then the lower index
    k2 : 1..d

    Returns
    -------
    indices (C, k2) int64, most frequent first, so that a smaller k2 gives a prefix; and (C,) bool, ties at the cut
    """
    if counts.shape != sums.shape or counts.ndim != 2:
        raise ValueError(f"counts, sums: expected one shape (C, d), found {counts.shape} and {sums.shape}")
    k = check_count("k2", k2, counts.shape[1])
    order = np.lexsort((-sums, -counts.astype(np.int64)), axis=1)
    ordered = np.take_along_axis(counts, order, axis=1)
    if k == counts.shape[1]:
        return order, np.zeros(len(counts), dtype=np.bool_)
    return order[:, :k].copy(), ordered[:, k - 1] == ordered[:, k]
