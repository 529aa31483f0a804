"""Features of two sets, matched one by one by the angle between their directions."""

import numpy as np
from numpy.typing import NDArray

Directions = NDArray[np.floating]


def angles(one: Directions, other: Directions) -> NDArray[np.float64]:
    """Return the angle between each two directions.

    Parameters
    ----------
    one : (f, d)
    other : (g, d)

    Returns
    -------
    (f, g) float64, degrees from 0 to 180; NaN for a direction of length 0

    Notes
    -----
    From the lengths of the sum and the difference of unit vectors (Kahan): exact also where the angle is near 0 or 180.
    """
    first, second = _unit(one), _unit(other)
    apart = np.linalg.norm(first[:, None] - second[None], axis=2)
    along = np.linalg.norm(first[:, None] + second[None], axis=2)
    found: NDArray[np.float64] = np.degrees(2 * np.arctan2(apart, along))
    return found


def match(one: Directions, other: Directions) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Match the directions of two sets one by one, so that the sum of the angles is as small as possible.

    Parameters
    ----------
    one : (f, d)
    other : (g, d)

    Returns
    -------
    partner : (f,) int64, the direction of `other` that each of `one` is matched with; -1 for a direction of length 0,
        and for those left over where `other` has fewer
    angle : (f,) float64, degrees; NaN without a partner
    """
    from scipy.optimize import linear_sum_assignment

    partner, angle = np.full(len(one), -1, np.int64), np.full(len(one), np.nan)
    mine, others = (np.flatnonzero(np.any(np.asarray(each) != 0, axis=1)) for each in (one, other))
    between = angles(one[mine], other[others])
    rows, columns = linear_sum_assignment(between)
    partner[mine[rows]], angle[mine[rows]] = others[columns], between[rows, columns]
    return partner, angle


def _unit(directions: Directions) -> NDArray[np.float64]:
    """Return directions (f, d) at unit length, NaN for those of length 0."""
    wide = np.asarray(directions, np.float64)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.where(length > 0, length, np.nan)
