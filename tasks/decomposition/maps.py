"""What a class's influential maps see that the others do not: the pictures beside an image."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.decomposition.checks import Doubles, Floats, Positions, check_count, check_indices, check_real


class ContrastMaps(NamedTuple):
    """Three maps (h, w) float64 of one image; the last two are positive where their features see more than all do."""

    all: Doubles
    influential: Doubles
    other: Doubles


def contrast_maps(maps: Floats, influential: NDArray[np.integer], other: NDArray[np.integer]) -> ContrastMaps:
    """Average an image's maps, and those of some features minus that average.

    Parameters
    ----------
    maps : (h, w, d) float, the last convolution's for one image
    influential : (k,) integer, J_y
    other : (l,) integer, equally many others, such as `least_frequent` gives

    Returns
    -------
    ContrastMaps: the mean of all d maps; the mean of the influential ones minus it; the same for the others
    """
    values = check_real("maps", maps)
    if values.ndim != 3 or 0 in values.shape:
        raise ValueError(f"maps: expected shape (h, w, d), found {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("maps: expected finite values, found NaN or inf")
    mean = values.mean(axis=2, dtype=np.float64)
    chosen = [check_indices(one[None], values.shape[2])[0] for one in (influential, other)]
    return ContrastMaps(mean, *(values[:, :, one].mean(axis=2, dtype=np.float64) - mean for one in chosen))


def least_frequent(ranking: Positions, k: int) -> Positions:
    """Return the features of each class that are least often among the strongest, least frequent first.

    Parameters
    ----------
    ranking : (C, d) int64, all features in the order of Algorithm 1 (`pick_sets` with k2 = d)
    k : 1..d; fewer than d / 2, or they meet the k influential ones

    Returns
    -------
    (C, k) int64
    """
    check_count("k", k, ranking.shape[1])
    return ranking[:, ::-1][:, :k].copy()
