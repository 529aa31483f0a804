"""Falls of the diversity of concepts along the snapshots of a training."""

import numpy as np
from numpy.typing import NDArray

WORSE = {"d_anchor": 1, "distinct": -1, "mean_pairwise": -1}  # direction in which a measure of diversity gets worse


def find_falls(values: NDArray[np.float64], share: float, *, worse: int) -> list[tuple[int, float]]:
    """Return where a measure has become worse than its best earlier value by a share, with that value.

    Parameters
    ----------
    values : (n,) float64, by snapshot; NaN where unknown
    share : of the best earlier value, 0 < share <= 1
    worse : 1 where larger values are worse, -1 where smaller ones are

    Returns
    -------
    index of the snapshot and the best earlier value; of successive such snapshots only the first
    """
    falls, best, fallen = [], float("nan"), False
    for index, value in enumerate(values.tolist()):
        if np.isnan(value):
            continue
        below = best > 0 and worse * (value - best) >= share * best
        if below and not fallen:
            falls.append((index, best))
        fallen = below
        best = value if np.isnan(best) else min(best, value) if worse > 0 else max(best, value)
    return falls
