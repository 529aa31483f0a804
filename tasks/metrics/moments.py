"""Count, means and scatter of many columns, added up chunk by chunk in float64 without holding a row."""

from typing import Self

import numpy as np
from numpy.typing import NDArray

from tasks.metrics.checks import Integers

Doubles = NDArray[np.float64]


class Moments:
    """The first two joint moments of the rows seen so far; holds (k, k) float64, twice with a permuted copy.

    Every chunk is centred on its own mean before its products are formed, and chunks are joined by the difference of
    their means (Chan, Golub & LeVeque 1979), so a large common offset costs no digits and the order of joining none
    but the last.

    Attributes
    ----------
    n : rows seen
    mean : (k,) float64
    scatter : (k, k) float64, sum of centred products
    permuted : (k, k) float64 or None, the products of each row with the row that `order` put in its place
    """

    def __init__(self, width: int) -> None:
        self.n = 0
        self.mean: Doubles = np.zeros(width)
        self.scatter: Doubles = np.zeros((width, width))
        self.permuted: Doubles | None = None

    def update(self, columns: Doubles, order: Integers | None = None) -> None:
        """Add the rows of one chunk.

        Parameters
        ----------
        columns : (m, k) float64, m at least 1; overwritten
        order : (m,) integer permutation or None; given for every chunk or for none
        """
        first = columns[0].copy()
        columns -= first  # a constant column becomes exact zeros, whatever its value
        middle = columns.mean(axis=0)
        columns -= middle
        chunk = Moments(0)
        chunk.n, chunk.mean, chunk.scatter = len(columns), first + middle, columns.T @ columns
        chunk.permuted = None if order is None else columns.T @ columns[order]
        self.merge(chunk)

    def merge(self, other: Self | "Moments") -> None:
        """Add the rows that another instance has seen; that one stays as it is and shares no memory.

        Parameters
        ----------
        other : moments of the same k columns
        """
        if other.n == 0:
            return
        if self.n == 0 and other.permuted is not None:
            self.permuted = np.zeros_like(self.scatter)
        if (self.permuted is None) != (other.permuted is None):
            raise ValueError("a permuted order was given for some of the rows only: give it for every chunk or none")
        total = self.n + other.n
        shift = other.mean - self.mean
        between = np.outer(shift, shift * (self.n * other.n / total))
        self.scatter += other.scatter
        self.scatter += between
        if self.permuted is not None and other.permuted is not None:
            self.permuted += other.permuted
            self.permuted += between
        self.mean = other.mean.copy() if self.n == 0 else self.mean + shift * (other.n / total)
        self.n = total
