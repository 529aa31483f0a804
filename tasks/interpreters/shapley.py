"""Shapley values of a set function: exact, or from seeded permutations."""

import math
from collections.abc import Callable
from itertools import combinations
from operator import index

import numpy as np
from numpy.typing import NDArray

Value = Callable[[frozenset[int]], float]

MOST_EXACT = 12  # players up to which all subsets are asked
MOST_SUBSETS = 24  # players up to which a value for each subset fits in memory


def exact_shapley(value: Value, m: int) -> NDArray[np.float64]:
    """Return each player's mean gain over all orders in which the players can join.

    Parameters
    ----------
    value : set of players in 0..m-1 -> a finite number; asked once for each of the 2^m subsets, the smallest first
    m : number of players, >= 1

    Returns
    -------
    (m,) float64; the sum is value(all) - value(none)
    """
    n = _count(m)
    if n > MOST_SUBSETS:
        raise ValueError(
            f"m: expected at most {MOST_SUBSETS}, as all 2^m subsets are asked, found {n}; sample the orders"
        )
    worth = np.empty(1 << n)
    for size in range(n + 1):
        for members in combinations(range(n), size):
            worth[sum(1 << member for member in members)] = _finite(value, frozenset(members))
    sizes = np.array([subset.bit_count() for subset in range(1 << n)])
    weights = np.array([1 / (n * math.comb(n - 1, size)) for size in range(n)])
    found = np.empty(n)
    for player in range(n):
        without = np.flatnonzero((np.arange(1 << n) >> player) & 1 == 0)
        gains = worth[without | (1 << player)] - worth[without]
        found[player] = math.fsum((weights[sizes[without]] * gains).tolist())
    return found


def sampled_shapley(value: Value, m: int, *, draws: int, seed: int) -> NDArray[np.float64]:
    """Return each player's mean gain over random orders, each followed by its reverse.

    Parameters
    ----------
    value : as in `exact_shapley`; asked once for each subset that occurs
    m : number of players, >= 1
    draws : number of random orders, >= 1; with their reverses twice as many are used
    seed : of the orders

    Returns
    -------
    (m,) float64, unbiased; the sum is value(all) - value(none) exactly
    """
    n, rng = _count(m), np.random.default_rng(seed)
    if index(draws) < 1:
        raise ValueError(f"draws: expected at least 1, found {draws}")
    worth: dict[frozenset[int], float] = {}
    gains = np.zeros(n)
    for _ in range(draws):
        order = rng.permutation(n)
        for joined in (order, order[::-1]):
            before = frozenset[int]()
            for player in joined.tolist():
                after = before | {player}
                for members in (before, after):
                    if members not in worth:
                        worth[members] = _finite(value, members)
                gains[player] += worth[after] - worth[before]
                before = after
    return gains / (2 * draws)


def shapley(value: Value, m: int, *, draws: int, seed: int) -> NDArray[np.float64]:
    """Return exact values of up to `MOST_EXACT` players, and sampled values of more; parameters as above."""
    return exact_shapley(value, m) if m <= MOST_EXACT else sampled_shapley(value, m, draws=draws, seed=seed)


def _count(m: int) -> int:
    """Return a checked number of players."""
    if isinstance(m, bool) or not isinstance(m, int | np.integer):
        raise TypeError(f"m: expected an integer, found {m!r}")
    if m < 1:
        raise ValueError(f"m: expected at least 1, found {m}")
    return int(m)


def _finite(value: Value, members: frozenset[int]) -> float:
    """Return the value of a set; raise ValueError for NaN or infinity."""
    given = value(members)
    try:
        found = float(given)
    except (TypeError, ValueError):
        raise TypeError(f"value: expected a number, found {given!r} for the set {sorted(members)}") from None
    if not math.isfinite(found):
        raise ValueError(f"value: expected a finite number, found {found} for the set {sorted(members)}")
    return found
