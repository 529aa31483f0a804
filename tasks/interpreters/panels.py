"""Inner products of many units over samples, a panel of units at a time, each pair of units once."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

BLOCK = 256  # rows of a panel that are multiplied at once: the products below a block's own square are left out


def panel_sums(
    chunks: Iterable[tuple[NDArray[np.floating], NDArray[np.int64]]], panel: slice, units: int, classes: int
) -> tuple[Doubles, Doubles]:
    """Return the rows of X'X and X'L that belong to a panel of units; X'X is symmetric, so it is filled from there on.

    Parameters
    ----------
    chunks : responses (b, M) of samples and their classes (b,), -1 for none, in the order in which they are added
    panel : units of the rows
    units, classes : M and C

    Returns
    -------
    (p, M) and (p, C) float64; columns of X'X left of the panel are 0, and the panel's own square is symmetric

    Notes
    -----
    Holds a panel, a block's product with a chunk, and a chunk in float64: 8 (p + BLOCK) M + 24 b M bytes, however many
    samples there are. All panels together cost half of the whole product, and half a block more.
    """
    first, last, _ = panel.indices(units)
    gram, moment = np.zeros((last - first, units)), np.zeros((last - first, classes))
    for responses, predicted in chunks:
        x = responses[:, first:].astype(np.float64, copy=False)
        left = np.ascontiguousarray(x[:, : last - first].T)
        for low in range(0, last - first, BLOCK):
            gram[low : low + BLOCK, first + low :] += left[low : low + BLOCK] @ x[:, low:]
        _add_by_class(moment, left, predicted)
    own = gram[:, first:last]
    for row in range(last - first):  # an array of indices would be larger than the panel
        own[row + 1 :, row] = own[row, row + 1 :]
    return gram, moment


def _add_by_class(moment: Doubles, left: Doubles, predicted: NDArray[np.int64]) -> None:
    """Add the columns (p, b) of samples to those of their classes (p, C), in place: no product with one-hot rows."""
    order = np.argsort(predicted, kind="stable")
    order = order[np.searchsorted(predicted[order], 0) :]
    if len(order):
        present, starts = np.unique(predicted[order], return_index=True)
        moment[:, present] += np.add.reduceat(left[:, order], starts, axis=1)


def whole_gram(panels: Iterable[Doubles], units: int) -> Doubles:
    """Return X'X (M, M) from its panels in order, each filled from its own square on."""
    gram, start = np.empty((units, units)), 0
    for panel in panels:
        stop = start + len(panel)
        gram[start:stop, start:] = panel[:, start:]
        gram[stop:, start:stop] = panel[:, stop:].T
        start = stop
    return gram
