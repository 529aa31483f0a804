"""Sums that no order of adding changes."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.decomposition.exact_sums import ExactSums

Doubles = NDArray[np.float64]


def wild(rng: np.random.Generator, shape: tuple[int, int], dtype: str, span: int) -> Doubles:
    """Values of both signs whose exponents lie within +-span binary orders, as `dtype` holds them."""
    values = np.ldexp(rng.uniform(-1, 1, shape), rng.integers(-span, span, shape))
    return values.astype(dtype).astype(np.float64)


def exact(rows: NDArray[np.int64], values: Doubles, n_rows: int) -> Doubles:
    """Correctly rounded sums by row."""
    return np.array([[math.fsum(column) for column in values[rows == row].T] for row in range(n_rows)])


def bytes_of(sums: ExactSums) -> list[bytes]:
    """The state and what is read from it."""
    return [*(array.tobytes() for array in sums.state("x").values()), sums.totals().tobytes()]


@pytest.mark.parametrize(("dtype", "span"), [("float32", 3), ("float32", 120), ("float64", 3), ("float64", 900)])
def test_no_order_of_adding_or_merging_changes_a_byte(dtype: str, span: int) -> None:
    rng = np.random.default_rng(span)
    values, rows = wild(rng, (300, 5), dtype, span), rng.integers(0, 4, 300)
    whole = ExactSums((4, 5))
    whole.add(rows, values)
    for trial in range(8):
        order = rng.permutation(300)
        cuts = np.sort(rng.integers(0, 300, rng.integers(0, 40)))
        parts = []
        for chunk in np.split(order, cuts):  # some are empty
            parts.append(ExactSums((4, 5)))
            parts[-1].add(rows[chunk], values[chunk])
        while len(parts) > 1:  # in a tree of any form
            parts.insert(0, parts.pop(rng.integers(len(parts))).merge(parts.pop(rng.integers(len(parts)))))
        assert bytes_of(parts[0]) == bytes_of(whole), trial
    # correctly rounded but for the last place, although terms cancel
    np.testing.assert_array_max_ulp(whole.totals(), exact(rows, values, 4), 1)


def test_small_terms_survive_large_ones_that_cancel() -> None:
    sums = ExactSums((1, 1))
    sums.add(np.zeros(4, dtype=np.int64), np.array([[1e300], [1e-300], [-1e300], [5e-324]]))
    assert sums.totals()[0, 0] == 1e-300
    assert float(sums.of_columns()[0] * 10**300) == 1.0
    sums.add(np.zeros(1, dtype=np.int64), np.array([[-1e-300]]))
    assert sums.totals()[0, 0] == 5e-324


@pytest.mark.parametrize("value", [5e-324, 2.0**-1022, 1e-30, 0.1, 1.0, 2.0**32, 2.0**32 - 1, 3e38, 8.9e307])
def test_one_value_is_its_own_sum(value: float) -> None:
    for signed in (value, -value):
        sums = ExactSums((2, 1))
        sums.add(np.array([1]), np.array([[signed]]))
        np.testing.assert_array_equal(sums.totals(), [[0.0], [signed]])


def test_carries_pass_through_slots_that_hold_nothing() -> None:
    sums = ExactSums((1, 1))
    sums.add(np.zeros(100_000, dtype=np.int64), np.full((100_000, 1), 2.0**32 - 1))
    assert sums.totals()[0, 0] == 100_000 * (2**32 - 1)
    sums.add(np.zeros(1, dtype=np.int64), np.array([[2.0**200]]))
    assert sums.of_columns()[0] == 100_000 * (2**32 - 1) + 2**200
    assert sums.totals()[0, 0] == 2.0**200


def test_columns_differences_and_states() -> None:
    rng = np.random.default_rng(1)
    values, rows = wild(rng, (50, 3), "float32", 40), rng.integers(0, 2, 50)
    sums, others = ExactSums((2, 3)), ExactSums((2, 3))
    sums.add(rows, values)
    others.add(rows[:20], values[:20])
    assert [float(one) for one in sums.of_columns()] == [math.fsum(column) for column in values.T]
    rest = sums.copy().merge(others, -1)
    np.testing.assert_array_max_ulp(rest.totals(), exact(rows[20:], values[20:], 2), 1)
    again = ExactSums.of_state("x", sums.state("x"))
    assert bytes_of(again) == bytes_of(sums)
    again.add(rows, values)  # shares no memory
    np.testing.assert_array_max_ulp(sums.totals(), exact(rows, values, 2), 1)
    empty = ExactSums.of_state("x", ExactSums((2, 3)).state("x"))
    np.testing.assert_array_equal(empty.totals(), np.zeros((2, 3)))


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"merge: expected sums of shape \(2, 3\), found \(3, 2\)"):
        ExactSums((2, 3)).merge(ExactSums((3, 2)))
