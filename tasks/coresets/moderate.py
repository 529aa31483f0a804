"""The moderate coreset (Xia et al. 2022, section 3): samples that are neither most typical nor outliers."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tasks.coresets.selection import Floats, Seed, Selection, check_budget, check_count, check_features

Center = Literal["mean", "median"]


def select_moderate(
    features: Floats, rho: float, *, seed: Seed = 0, center: Center = "mean", min_per_class: int = 1
) -> Selection:
    """Keep the samples of one class whose distance to its centre is nearest the median rank.

    Parameters
    ----------
    features : (n, d) float, one class's pooled activations
    rho : share to keep, 0 < rho <= 1; rounding of both bounds of the window moves the count by 1 or 2 from rho n
    seed : unused, part of the selector protocol
    center : "mean" (the paper) or "median" (the authors' code, by coordinate)
    min_per_class : least number of rows (or all n); a shorter window is widened about the middle of the order

    Returns
    -------
    Selection, `order` by distance to the centre

    Notes
    -----
    Ties are broken by lower index. The window grows with rho and holds every smaller window, so budgets nest.
    """
    values, rho = check_features(features), check_budget(rho)
    fewest = min(check_count("min_per_class", min_per_class), len(values))
    order = np.argsort(distance_to_center(values, center), kind="stable")
    n = len(order)
    # Floats, in this order: an exact half that n * 0.55 misses by one bit rounds up, e.g. 60.5 at n = 110 to 61.
    low, high = round(n * (0.5 - rho / 2)), round(n * (0.5 + rho / 2))
    if high - low < fewest:
        low = (n - fewest + 1) // 2
        high = low + fewest
    return Selection.of(order[low:high])


def distance_to_center(values: NDArray[np.float64], center: Center) -> NDArray[np.float64]:
    """Measure the distance of each row from the centre of all rows.

    Parameters
    ----------
    values : (n, d) float64
    center : "mean" or "median" by coordinate

    Returns
    -------
    (n,) float64 Euclidean distances
    """
    if center not in ("mean", "median"):
        raise ValueError(f"center: expected 'mean' or 'median', found {center!r}")
    middle = values.mean(axis=0) if center == "mean" else np.median(values, axis=0)
    distances: NDArray[np.float64] = np.linalg.norm(values - middle, axis=1)
    return distances
