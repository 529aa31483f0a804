"""Shapley values by hand, against all orders, and sampled."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from tasks.interpreters.shapley import MOST_EXACT, sampled_shapley, shapley
from tasks.interpreters.topics import exact_shapley


def table_of(m: int, seed: int) -> dict[frozenset[int], float]:
    """Return a random value for each subset."""
    rng = np.random.default_rng(seed)
    subsets = (frozenset(s) for k in range(m + 1) for s in itertools.combinations(range(m), k))
    return {subset: float(rng.normal()) for subset in subsets}


@pytest.mark.parametrize("m", [1, 2, 3, 5])
def test_it_is_the_mean_gain_over_all_orders(m: int) -> None:
    table = table_of(m, m)
    gains = np.zeros(m)
    for order in itertools.permutations(range(m)):
        for k, player in enumerate(order):
            gains[player] += table[frozenset(order[: k + 1])] - table[frozenset(order[:k])]
    np.testing.assert_allclose(exact_shapley(table.__getitem__, m), gains / math.factorial(m), rtol=1e-12, atol=1e-15)


def test_gloves_by_hand() -> None:
    # Players 0 and 1 have a left glove, 2 a right one; a pair is worth 1: Shapley 1/6, 1/6, 2/3.
    def pairs(members: frozenset[int]) -> float:
        return float(2 in members and len(members) > 1)

    np.testing.assert_allclose(exact_shapley(pairs, 3), [1 / 6, 1 / 6, 2 / 3])


def test_each_subset_is_asked_once_and_the_sum_is_the_whole() -> None:
    table, asked = table_of(8, 0), Counter[frozenset[int]]()

    def value(members: frozenset[int]) -> float:
        asked[members] += 1
        return table[members]

    found = exact_shapley(value, 8)
    assert found.dtype == np.float64
    assert set(asked) == set(table)
    assert set(asked.values()) == {1}
    np.testing.assert_allclose(found.sum(), table[frozenset(range(8))] - table[frozenset()], rtol=1e-12)


def test_additive_null_and_symmetric_players() -> None:
    worth = np.array([0.0, 2.0, 2.0, -1.0])

    def added(members: frozenset[int]) -> float:
        return float(worth[sorted(members)].sum()) + 7.0

    np.testing.assert_allclose(exact_shapley(added, 4), worth, atol=1e-15)
    np.testing.assert_allclose(sampled_shapley(added, 4, draws=1, seed=0), worth, atol=1e-15)


def test_sampling_is_seeded_unbiased_and_efficient() -> None:
    table = table_of(5, 3)
    exact = exact_shapley(table.__getitem__, 5)
    few = sampled_shapley(table.__getitem__, 5, draws=3, seed=1)
    np.testing.assert_array_equal(few, sampled_shapley(table.__getitem__, 5, draws=3, seed=1))
    np.testing.assert_allclose(few.sum(), exact.sum(), rtol=1e-12)
    many = sampled_shapley(table.__getitem__, 5, draws=4000, seed=2)
    np.testing.assert_allclose(many, exact, atol=0.05)  # the mean of 8,000 gains with deviation below 2


def test_many_players_are_sampled_and_each_subset_is_asked_once() -> None:
    asked = Counter[frozenset[int]]()

    def value(members: frozenset[int]) -> float:
        asked[members] += 1
        return float(len(members) ** 2)

    found = shapley(value, MOST_EXACT + 1, draws=20, seed=0)
    assert len(asked) < 2 * 20 * 14
    assert set(asked.values()) == {1}
    np.testing.assert_allclose(found.sum(), 169)


def test_up_to_twelve_players_are_exact() -> None:
    asked: list[frozenset[int]] = []

    def value(members: frozenset[int]) -> float:
        asked.append(members)
        return float(7 in members)

    np.testing.assert_allclose(shapley(value, 12, draws=1, seed=0), np.arange(12) == 7, atol=1e-15)
    assert len(asked) == 4096


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="m: expected at least 1, found 0"):
        exact_shapley(lambda _: 0.0, 0)
    with pytest.raises(ValueError, match="m: expected at most 24, as all 2"):
        exact_shapley(lambda _: 0.0, 60)
    with pytest.raises(TypeError, match=r"m: expected an integer, found 1.5"):
        exact_shapley(lambda _: 0.0, 1.5)  # type: ignore[arg-type]  # the wrong kind is the point
    with pytest.raises(TypeError, match=r"value: expected a number, found None for the set \[\]"):
        exact_shapley(lambda _: None, 1)  # type: ignore[arg-type, return-value]  # the wrong kind is the point
    with pytest.raises(ValueError, match=r"value: expected a finite number, found nan for the set \[1\]"):
        exact_shapley(lambda members: float("nan") if members == {1} else 0.0, 2)
    with pytest.raises(ValueError, match="draws: expected at least 1, found 0"):
        sampled_shapley(lambda _: 0.0, 2, draws=0, seed=0)
