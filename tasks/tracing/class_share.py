"""Class share over training: the contribution of each class to a representation, by epoch."""

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tasks.tracing.checks import Doubles, check_integers, check_values


class ClassShare:
    """Gamma of each query summed by (class, epoch), exact for any chunks of steps; holds (Q, C, E) float64.

    Parameters
    ----------
    n_queries, n_classes, n_epochs : Q, C, E
    """

    def __init__(self, n_queries: int, n_classes: int, n_epochs: int) -> None:
        self.sums = np.zeros((n_queries, n_classes, n_epochs))

    def update(self, gamma: NDArray[np.floating], shares: NDArray[np.floating], epochs: NDArray[np.integer]) -> None:
        """Add the contributions of some steps.

        Parameters
        ----------
        gamma : (Q, t) float
        shares : (t, C) float, the part of each step that is credited to each class, from `shares_of_classes`
        epochs : (t,) integer, 0..E-1
        """
        values, parts = check_values("gamma", gamma, 2), check_values("shares", shares, 2)
        n_queries, n_classes, n_epochs = self.sums.shape
        if len(values) != n_queries or parts.shape != (values.shape[1], n_classes):
            raise ValueError(
                f"gamma, shares: expected shapes ({n_queries}, t) and (t, {n_classes}), "
                f"found {values.shape} and {parts.shape}"
            )
        when = check_integers("epochs", epochs, values.shape[1])
        if len(when) and (when.min() < 0 or when.max() >= n_epochs):
            raise ValueError(f"epochs: expected 0..{n_epochs - 1}, found {when.min()}..{when.max()}")
        for epoch in np.unique(when):
            chosen = when == epoch
            self.sums[:, :, epoch] += values[:, chosen] @ parts[chosen]

    def merge(self, other: Self) -> Self:
        """Add the sums of another instance of the same shape, which is not changed. Returns this instance."""
        if self.sums.shape != other.sums.shape:
            raise ValueError(f"merge: expected shape {self.sums.shape}, found {other.sums.shape}")
        self.sums = self.sums + other.sums
        return self


def shares_of_classes(labels: Sequence[NDArray[np.integer]], n_classes: int) -> Doubles:
    """Return the share (T, C) of each class in each step's members.

    Parameters
    ----------
    labels : T integer arrays, the classes 0..C-1 of each step's members; a step without members has shares of 0
    n_classes : C
    """
    found = np.zeros((len(labels), n_classes))
    for t, step in enumerate(labels):
        if not len(step):
            continue
        checked = check_integers(f"labels[{t}]", step)
        if checked.min() < 0 or checked.max() >= n_classes:
            raise ValueError(f"labels[{t}]: expected 0..{n_classes - 1}, found {checked.min()}..{checked.max()}")
        found[t] = np.bincount(checked, minlength=n_classes) / len(checked)
    return found
