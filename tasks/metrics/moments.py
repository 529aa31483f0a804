"""Count, means and scatter of many columns, summed chunk by chunk in float64; rows are not held."""

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tasks.metrics.checks import Floats, Integers

Doubles = NDArray[np.float64]
Exponents = NDArray[np.int32]

STEP = 256  # exponents are multiples of it: 0 for magnitudes of 1e-38 to 1e38; other products stay in range
STRIP = 64  # rows that are worked on while they are in the processor's cache
LOWEST = -1024  # exponent of a set that is constant so far


class Moments:
    """The first two joint moments of the rows so far: (k, k) float64, twice that with a permuted copy.

    Every chunk is centred on its own mean before its products are formed. Chunks are joined by the difference of their
    means (Chan, Golub & LeVeque 1979). Therefore a large common offset does not cost digits, and the order of joining
    changes only the last digit. Products are of deviations times 2^-exponent, because squares of 1e160 and of 1e-200
    are outside float64.

    Parameters
    ----------
    widths : number of columns of each set, k in all; the columns of a set share an exponent

    Attributes
    ----------
    n : rows so far
    mean : (k,) float64
    exponent : (k,) int32, from each set's largest deviation
    scatter : (k, k) float64, sum of centred products
    permuted : (k, k) float64 or None, the products of each row with the row that `order` puts in its place
    """

    def __init__(self, widths: Sequence[int]) -> None:
        self.n = 0
        self.widths = tuple(widths)
        width = sum(self.widths)
        self.mean: Doubles = np.zeros(width)
        self.exponent: Exponents = np.full(width, LOWEST, dtype=np.int32)
        self.scatter: Doubles = np.zeros((width, width))
        self.permuted: Doubles | None = None

    def update(self, blocks: Sequence[Floats], order: Integers | None = None) -> None:
        """Add the rows of one chunk to the moments.

        Parameters
        ----------
        blocks : an array (m, width) of real numbers for each set, the same m rows, at least 1
        order : (m,) integer permutation or None; given for every chunk or for none
        """
        first = np.concatenate([block[0] for block in blocks], dtype=np.float64)
        columns, largest = _differences(blocks, first)
        chunk = Moments(self.widths)
        chunk.exponent = self._exponents(largest)
        if chunk.exponent.any():
            np.ldexp(columns, -chunk.exponent, out=columns)
        middle = columns.mean(axis=0)
        columns -= middle
        chunk.n, chunk.mean, chunk.scatter = len(columns), first + np.ldexp(middle, chunk.exponent), columns.T @ columns
        chunk.permuted = None if order is None else columns.T @ columns[order]
        self.merge(chunk)

    def merge(self, other: Self | "Moments") -> None:
        """Add the rows of another instance, which is not changed and does not share memory.

        Parameters
        ----------
        other : moments of the same k columns
        """
        if other.n == 0:
            return
        if self.n == 0 and other.permuted is not None:
            self.permuted = np.zeros_like(self.scatter)
        if (self.permuted is None) != (other.permuted is None):
            raise ValueError("order: expected a permutation for every chunk or for none, found it for some only")
        total = self.n + other.n
        with np.errstate(over="ignore"):  # _exponents reports it
            shift = other.mean - self.mean if self.n else np.zeros_like(self.mean)
        exponent = np.maximum(self._exponents(np.abs(shift)), np.maximum(self.exponent, other.exponent))
        scaled = np.ldexp(shift, -exponent)
        between = scaled, scaled * (self.n * other.n / total)
        _add(self.scatter, self.exponent - exponent, other.scatter, other.exponent - exponent, between)
        if self.permuted is not None and other.permuted is not None:
            _add(self.permuted, self.exponent - exponent, other.permuted, other.exponent - exponent, between)
        self.mean = other.mean.copy() if self.n == 0 else self.mean + shift * (other.n / total)
        self.n, self.exponent = total, exponent

    def _exponents(self, largest: Doubles) -> Exponents:
        """Return exponents (k,) of sets with deviations of up to `largest` (k,)."""
        if not np.isfinite(largest).all():
            most = np.finfo(np.float64).max
            raise ValueError(f"columns: expected differences up to {most:.2g}, found larger ones; divide the sets")
        starts = np.cumsum((0, *self.widths[:-1]))
        of_set = np.maximum.reduceat(largest, starts)
        steps = STEP * np.round(np.frexp(of_set)[1] / STEP).astype(np.int32)
        return np.repeat(np.where(of_set > 0, steps, LOWEST).astype(np.int32), self.widths)


def _differences(blocks: Sequence[Floats], first: Doubles) -> tuple[Doubles, Doubles]:
    """Return the rows less a first one (m, k), and the largest magnitude of each column (k,), inf or NaN too."""
    columns, largest = np.empty((len(blocks[0]), len(first))), np.zeros(len(first))
    with np.errstate(over="ignore", invalid="ignore"):  # _exponents reports it
        for start in range(0, len(columns), STRIP):
            rows = columns[start : start + STRIP]
            np.concatenate([block[start : start + STRIP] for block in blocks], axis=1, out=rows)
            rows -= first  # a constant column of any value becomes exact zeros
            np.maximum(largest, np.maximum(rows.max(axis=0), -rows.min(axis=0)), out=largest)
    return columns, largest


def _add(mine: Doubles, own: Exponents, theirs: Doubles, other: Exponents, between: tuple[Doubles, Doubles]) -> None:
    """Add products (k, k) in place, after the columns of both are scaled by 2^own and 2^other (k,).

    Parameters
    ----------
    between : two vectors (k,); their outer product is added too
    """
    left, right = between
    for start in range(0, len(mine), STRIP):
        rows = slice(start, start + STRIP)
        part, others = mine[rows], theirs[rows]
        if own.any():
            np.ldexp(part, own[rows, None] + own, out=part)
        part += np.ldexp(others, other[rows, None] + other) if other.any() else others
        part += np.outer(left[rows], right)
