"""Sums that do not depend on their order: integers in slots of 32 binary digits, rounded only when read."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tasks.decomposition.checks import Doubles, Positions, blocks

BITS = 32  # an int64 takes 2^31 pieces below 2^32
SAFE = 1000  # 2^+-1000 is an ordinary float64


class ExactSums:
    """Exact sums of float64 values by row, for up to 2^31 values of any magnitude up to 2^1023.

    A value is cut into pieces: integer multiples of 2^(32 slot) below 2^(32 (slot + 1)). The multiples are added as
    integers. Therefore neither chunks nor the order of merging change a bit of the sums or of the state.
    Holds (rows, columns) int64 for every slot in use: 3 or 4 for usual activations.

    Parameters
    ----------
    shape : (rows, columns)

    Attributes
    ----------
    digits : (rows, columns) int64, by slot
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.digits: dict[int, Positions] = {}

    def add(self, rows: Positions, values: Doubles) -> None:
        """Add values to rows.

        Parameters
        ----------
        rows : (m,) int64, the row of the sums for each row of values
        values : (m, columns) float64, finite
        """
        for part in blocks(len(values), self.shape[1], 1 << 17):
            self._add_block(rows[part], values[part])

    def merge(self, other: "ExactSums", sign: int = 1) -> Self:
        """Add or subtract the sums of another instance, which is not changed. Returns this instance."""
        if self.shape != other.shape:
            raise ValueError(f"merge: expected sums of shape {self.shape}, found {other.shape}")
        for slot, digits in other.digits.items():
            self._slot(slot)[...] += sign * digits
        return self

    def copy(self) -> "ExactSums":
        """Return an instance that does not share memory with this one."""
        return ExactSums(self.shape).merge(self)

    def totals(self) -> Doubles:
        """Return the sums (rows, columns), exact to a unit of the last place."""
        total = np.zeros(self.shape)
        if not self.digits:
            return total
        carry = np.zeros(self.shape, dtype=np.int64)
        low, high = min(self.digits), max(self.digits)
        for slot in range(low, high + 1):
            digits = self.digits.get(slot, 0) + carry
            carry = (digits + (1 << (BITS - 1))) >> BITS
            total += _shifted((digits - (carry << BITS)).astype(np.float64), slot * BITS)
        if carry.any():
            total += _shifted(carry.astype(np.float64), (high + 1) * BITS)
        return total

    def of_columns(self) -> list[Fraction]:
        """Return the exact sum of each column over all rows."""
        found = [Fraction(0)] * self.shape[1]
        for slot, digits in self.digits.items():
            unit = Fraction(2) ** (slot * BITS)
            found = [one + digit * unit for one, digit in zip(found, digits.sum(axis=0).tolist(), strict=True)]
        return found

    def state(self, name: str) -> dict[str, NDArray[np.int64]]:
        """Return the arrays `{name}_slots` (s,), rising, and `{name}_digits` (s, rows, columns), both int64."""
        slots = sorted(self.digits)
        digits = [self.digits[slot] for slot in slots]
        stacked = np.stack(digits) if digits else np.zeros((0, *self.shape), dtype=np.int64)
        return {f"{name}_slots": np.array(slots, dtype=np.int64), f"{name}_digits": stacked}

    @classmethod
    def of_state(cls, name: str, state: Mapping[str, NDArray[np.int64]]) -> Self:
        """Build an instance from the arrays of `state(name)`; it does not share memory with them."""
        slots, digits = state[f"{name}_slots"], state[f"{name}_digits"]
        sums = cls((digits.shape[1], digits.shape[2]))
        sums.digits = {int(slot): np.array(one, dtype=np.int64) for slot, one in zip(slots, digits, strict=True)}
        return sums

    def _add_block(self, rows: Positions, values: Doubles) -> None:
        """Add the pieces of values (b, columns), largest slot first."""
        from scipy import sparse

        present, place = np.unique(rows, return_inverse=True)
        pairs = (np.ones(len(rows)), (place, np.arange(len(rows))))
        member = sparse.csr_array(pairs, shape=(len(present), len(rows)))
        rest = values.copy()
        while largest := float(np.abs(rest).max(initial=0)):
            slot = (int(np.frexp(largest)[1]) - 1) // BITS
            pieces = np.trunc(_shifted(rest, -slot * BITS))
            rest -= _shifted(pieces, slot * BITS)
            # At most 2^17 integers below 2^32: their float64 sums are exact in any order.
            self._slot(slot)[present] += (member @ pieces).astype(np.int64)

    def _slot(self, slot: int) -> Positions:
        """Return the digits of a slot, which are zeros at first."""
        return self.digits.setdefault(slot, np.zeros(self.shape, dtype=np.int64))


def _shifted(values: Doubles, exponent: int) -> Doubles:
    """Return values times 2^exponent, also where that factor is not a float64."""
    shifted: Doubles = values * 2.0**exponent if abs(exponent) <= SAFE else np.ldexp(values, exponent)
    return shifted
