"""The moderate coreset (Xia et al. 2022, section 3): samples that are neither most typical nor outliers."""

from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tasks.coresets.selection import Floats, Seed, Selection, check_budget, check_count, check_rows, row_blocks

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
    values, rho = check_rows(features), check_budget(rho)
    fewest = min(check_count("min_per_class", min_per_class), len(values))
    order = np.argsort(distance_to_center(values, center), kind="stable")
    n = len(order)
    # Floats, in this order: an exact half that n * 0.55 misses by one bit rounds up, e.g. 60.5 at n = 110 to 61.
    low, high = round(n * (0.5 - rho / 2)), round(n * (0.5 + rho / 2))
    if high - low < fewest:
        low = (n - fewest + 1) // 2
        high = low + fewest
    return Selection.of(order[low:high])


def select_moderate_across(
    classes: Iterable[Floats], rho: float, *, center: Center = "mean", min_per_class: int = 1
) -> list[Selection]:
    """Keep the samples of all classes whose distance to the centre of their class is nearest the median rank of all.

    Parameters
    ----------
    classes : (n_c, d) float of each class in turn, read one after the other
    rho : share of all samples to keep, 0 < rho <= 1
    center : as in `select_moderate`
    min_per_class : least number of rows of each class (or all n_c); a class with fewer rows in the window keeps those
        of its rows that are nearest the middle of the order, of two equally near the upper one

    Returns
    -------
    Selections in the order of the classes, `order` by distance to the centre

    Notes
    -----
    The authors' code sorts all classes together. Ties go to the earlier class, then to the lower index. Windows nest,
    as in `select_moderate`. Holds the distances of all samples and one class's features.
    """
    rho, fewest = check_budget(rho), check_count("min_per_class", min_per_class)
    distances = [distance_to_center(check_rows(features), center) for features in classes]
    n = sum(len(distance) for distance in distances)
    order = np.argsort(np.concatenate(distances), kind="stable") if distances else np.zeros(0, np.int64)
    rank = np.empty(n, np.int64)
    rank[order] = np.arange(n)
    low, high = round(n * (0.5 - rho / 2)), round(n * (0.5 + rho / 2))
    chosen, stop = [], 0
    for distance in distances:
        start, stop = stop, stop + len(distance)
        chosen.append(_of_class(rank[start:stop], low, high, min(fewest, len(distance)), (n - 1) / 2))
    return chosen


def _of_class(rank: NDArray[np.int64], low: int, high: int, fewest: int, middle: float) -> Selection:
    """Return the rows of a class with ranks (n_c,) of `low:high`, or the `fewest` nearest the middle rank."""
    rows = np.flatnonzero((rank >= low) & (rank < high))
    if len(rows) < fewest:
        rows = np.lexsort((-rank, np.abs(rank - middle)))[:fewest]  # of two equally near, the upper: as in one class
    return Selection.of(rows[np.argsort(rank[rows])])


def distance_to_center(values: Floats, center: Center) -> NDArray[np.float64]:
    """Measure the distance of each row from the centre of all rows.

    Parameters
    ----------
    values : (n, d) of any real dtype
    center : "mean" or "median" by coordinate

    Returns
    -------
    (n,) float64 Euclidean distances

    Notes
    -----
    Differences are made a block of rows at a time: those of 20,000 rows leave the processor's cache, and making their
    pages costs more than the arithmetic.
    """
    if center not in ("mean", "median"):
        raise ValueError(f"center: expected 'mean' or 'median', found {center!r}")
    with np.errstate(over="ignore", invalid="ignore"):  # reported below
        middle = values.mean(axis=0, dtype=np.float64) if center == "mean" else np.median(_wide(values), axis=0)
        distance = np.concatenate([np.linalg.norm(_wide(block) - middle, axis=1) for block in row_blocks(values)])
    if not np.isfinite(distance).all():
        largest = max(float(values.max()), -float(values.min()))
        raise ValueError(f"features: expected numbers with squares in float64, found up to {largest:.2g}; divide them")
    return distance


def _wide(values: Floats) -> NDArray[np.float64]:
    """Return values in float64, themselves where they are."""
    return values.astype(np.float64, copy=False)
