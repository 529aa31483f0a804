"""The order of an image's features: by magnitude, value, or contribution to the logit of its class."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from tasks.decomposition.checks import Doubles, Floats, Positions

RankBy = Literal["abs", "value", "contribution"]
RANKINGS: tuple[str, ...] = get_args(RankBy)

PARTIAL = 4  # below d / 4 features, to select and sort these is faster than to sort all
ROUNDING = 1e-12  # relative; a share that is reached exactly must count despite the rounding of a sum


def score_features(values: Floats, classes: Positions, rank_by: RankBy, weight: Doubles | None) -> Floats:
    """Return the scores that features are ranked by.

    Parameters
    ----------
    values : (m, d) float
    classes : (m,) int64
    rank_by : "abs" |x_j|, "value" x_j, "contribution" W[class, j] x_j (largest first)
    weight : (C, d) float64, read for "contribution" only

    Returns
    -------
    (m, d) float
    """
    if rank_by == "abs":
        return np.abs(values)
    if rank_by == "value":
        return values
    assert weight is not None
    scores: Floats = weight[classes] * values
    return scores


def rank_features(scores: Floats, k: int) -> Positions:
    """Return the k features of largest score in each row, largest first, equal scores by lower index.

    Parameters
    ----------
    scores : (m, d) float, finite
    k : 1..d

    Returns
    -------
    (m, k) int64
    """
    n, d = scores.shape
    if k * PARTIAL > d:
        return np.argsort(-scores, axis=1, kind="stable")[:, :k]
    cut = np.partition(scores, d - k, axis=1)[:, d - k, None]  # the k-th largest
    above, tied = scores > cut, scores == cut
    missing = k - above.sum(axis=1, keepdims=True)
    kept = above | (tied & (np.cumsum(tied, axis=1, dtype=np.int32) <= missing))
    chosen = np.nonzero(kept)[1].reshape(n, k)  # rising, so that a stable sort keeps the order of ties
    order = np.argsort(-np.take_along_axis(scores, chosen, axis=1), axis=1, kind="stable")
    return np.take_along_axis(chosen, order, axis=1)


def count_covering(values: Floats, order: Positions, share: float) -> NDArray[np.int64]:
    """Count the first features in each row's order that hold a share of its l1 norm; 0 for a row of zeros.

    Parameters
    ----------
    values : (m, d) float
    order : (m, d) int64
    share : 0 < share <= 1

    Returns
    -------
    (m,) int64, 0..d
    """
    held = np.cumsum(np.abs(np.take_along_axis(values, order, axis=1)), axis=1, dtype=np.float64)
    wanted = held[:, -1:] * (share * (1 - ROUNDING))
    enough = np.where(held[:, -1] > 0, (held < wanted).sum(axis=1) + 1, 0)
    return np.minimum(enough, held.shape[1])
