"""Inner products of many units over samples, a panel of units at a time."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


def panel_sums(
    chunks: Iterable[tuple[NDArray[np.floating], Doubles]], panel: slice, units: int, classes: int
) -> tuple[Doubles, Doubles]:
    """Return the rows of X'X and X'L that belong to a panel of units.

    Parameters
    ----------
    chunks : responses (b, M) and classes (b, C) of samples, in the order in which they are added
    panel : units of the rows
    units, classes : M and C

    Returns
    -------
    (p, M) and (p, C) float64

    Notes
    -----
    Holds a panel, its product with a chunk, and a chunk in float64: 16 p M + 16 b M bytes, however many samples there
    are.
    """
    first, last, _ = panel.indices(units)
    gram, moment = np.zeros((last - first, units)), np.zeros((last - first, classes))
    for responses, predicted in chunks:
        x = responses.astype(np.float64, copy=False)
        left = np.ascontiguousarray(x[:, panel].T)
        gram += left @ x
        moment += left @ predicted
    return gram, moment
