"""Exact upper quantiles of each unit's activations, from chunks."""

import math
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tasks.detectors.arrays import Doubles, Floats, check_values


class TopValues:
    """The largest values of each unit so far: enough for its upper quantile over all values.

    Picklable. Holds (K, m) in the width of the values, with m about `quantile` times `n_values`.

    Parameters
    ----------
    n_values : values of each unit in all, images times positions
    quantile : share of the values above the threshold, 0 to 1
    """

    def __init__(self, n_values: int, quantile: float) -> None:
        if isinstance(n_values, bool) or not isinstance(n_values, int | np.integer) or n_values < 1:
            raise ValueError(f"n_values: expected an integer of at least 1, found {n_values!r}")
        self._position = (int(n_values) - 1) * (1 - check_quantile(quantile))  # among the values in rising order
        self.n_values, self.quantile = int(n_values), float(quantile)
        self.n_held = self.n_values - math.floor(self._position)
        self.seen = 0
        self._top: Floats | None = None

    @classmethod
    def of(cls, state: Floats, n_values: int, quantile: float, seen: int) -> Self:
        """Return the instance that had this `state` after `seen` values."""
        result = cls(n_values, quantile)
        if state.ndim != 2 or state.shape[1] != result.n_held or not 0 <= seen <= n_values:
            raise ValueError(f"state: expected shape (K, {result.n_held}), found {state.shape} after {seen} values")
        result._top, result.seen = state[:, max(0, result.n_held - seen) :], seen
        return result

    def update(self, values: NDArray[Any]) -> Self:  # Any: real numbers
        """Add a chunk.

        Parameters
        ----------
        values : (n, K, ...) real, any number of positions

        Returns
        -------
        this instance
        """
        chunk = check_values("values", values)
        n_units = chunk.shape[1]
        flat = np.moveaxis(chunk.reshape(len(chunk), n_units, -1), 1, 0).reshape(n_units, -1)
        return self._add(flat, flat.shape[1])

    def merge(self, other: Self) -> Self:
        """Add the values of another instance of the same whole; it is not changed.

        Returns
        -------
        this instance
        """
        if (self.n_values, self.quantile) != (other.n_values, other.quantile):
            raise ValueError(
                f"merge: expected {self.n_values} values and quantile {self.quantile}, "
                f"found {other.n_values} and {other.quantile}"
            )
        return self if other._top is None else self._add(other._top, other.seen)

    def state(self) -> Floats:
        """Return (K, m), the largest values in rising order, -inf first where fewer were seen; see `of`."""
        top = np.sort(self._needed(), axis=1)
        missing = self.n_held - top.shape[1]
        return np.pad(top, ((0, 0), (missing, 0)), constant_values=-np.inf)

    def threshold(self) -> Doubles:
        """Return (K,) float64: NumPy's linear quantile at 1 - `quantile`, of all values."""
        if self.seen != self.n_values:
            raise ValueError(f"threshold: expected all {self.n_values} values of each unit, found {self.seen}")
        top = np.partition(self._needed(), min(1, self.n_held - 1), axis=1).astype(np.float64)
        low, high = top[:, 0], top[:, min(1, self.n_held - 1)]
        share = self._position - math.floor(self._position)
        # from the nearer end, as NumPy does
        return high - (high - low) * (1 - share) if share >= 0.5 else low + (high - low) * share

    def _needed(self) -> Floats:
        """Return what is held, after at least one chunk."""
        if self._top is None:
            raise ValueError("threshold: expected values, found none")
        return self._top

    def _add(self, values: Floats, n: int) -> Self:
        """Add (K, any) values, which stand for n values of each unit."""
        if self._top is not None and len(values) != len(self._top):
            raise ValueError(f"values: expected {len(self._top)} units, found {len(values)}")
        if self.seen + n > self.n_values:
            raise ValueError(f"values: expected {self.n_values} of each unit in all, found {self.seen + n}")
        held = values if self._top is None else np.concatenate([self._top, values], axis=1)
        surplus = held.shape[1] - self.n_held
        self._top = np.partition(held, surplus, axis=1)[:, surplus:].copy() if surplus > 0 else held.copy()
        self.seen += n
        return self


def check_quantile(quantile: float) -> float:
    """Check the share of the values above a threshold, 0 <= quantile <= 1."""
    real = isinstance(quantile, int | float | np.floating) and not isinstance(quantile, bool)
    if not real or not 0 <= quantile <= 1:
        raise ValueError(f"quantile: expected a share 0 to 1, found {quantile!r}")
    return float(quantile)
