"""Contrast maps: where a class's influential maps are above the mean of all maps."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.decomposition.checks import Doubles, Floats, Positions, check_count, check_indices, check_real


class ContrastMaps(NamedTuple):
    """Three maps (h, w) float64 of one image; the last two are positive where their features exceed the mean of all."""

    all: Doubles
    influential: Doubles
    other: Doubles


def contrast_maps(maps: Floats, influential: NDArray[np.integer], other: NDArray[np.integer]) -> ContrastMaps:
    """Return the average of an image's maps, and the averages of two sets of features minus it.

    Parameters
    ----------
    maps : (h, w, d) float, the last convolution's for one image
    influential : (k,) integer, J_y
    other : (l,) integer, as many other features, for example from `least_frequent`

    Returns
    -------
    ContrastMaps: the mean of all d maps; the mean of the influential maps minus it; the same for the other maps
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
    """Return the features of each class with the lowest counts in Algorithm 1, least frequent first.

    Parameters
    ----------
    ranking : (C, d) int64, all features in the order of Algorithm 1 (`pick_sets` with k2 = d)
    k : 1..d; below d / 2, or some of the k influential features are among them

    Returns
    -------
    (C, k) int64
    """
    check_count("k", k, ranking.shape[1])
    return ranking[:, ::-1][:, :k].copy()
