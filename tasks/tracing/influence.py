"""Influential examples: contributions summed over the steps of each example (Pfahler & Morik 2022, Alg. 1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from tasks.tracing.checks import Doubles, check_integers, check_values

Ids = NDArray[np.int64]

BLOCK = 4096  # number of ids that the one-shot form sums at a time


@dataclass(frozen=True)
class Influential:
    """The first k examples of each of Q queries.

    Attributes
    ----------
    ids : (Q, k) int64
    sums : (Q, k) float64, signed
    """

    ids: Ids
    sums: Doubles


def influential_examples(gamma: NDArray[np.floating], members: Sequence[NDArray[np.integer]], k: int) -> Influential:
    """Find the examples with the largest summed contributions; each step is split equally over its members.

    Parameters
    ----------
    gamma : (Q, T) float
    members : T integer arrays of any lengths, the ids of each step's examples, without ghosts; a step without
        members is credited to no example; an id that occurs twice gets two shares
    k : examples per query, at least 1; cut to the number of examples with a step

    Returns
    -------
    Influential, by decreasing signed sum, equal sums by smaller id

    Raises
    ------
    ValueError : the numbers of member arrays and of steps differ, NaN, k below 1
    """
    values = check_values("gamma", gamma, 2)
    steps = _check_members(members, values.shape[1])
    _check_count(k)
    ids = np.unique(np.concatenate([np.empty(0, np.int64), *steps]))
    found = Influential(np.empty((len(values), 0), np.int64), np.empty((len(values), 0)))
    for start in range(0, len(ids), BLOCK):
        sums = InfluenceSums(ids[start : start + BLOCK], len(values))
        sums.update(values, steps)
        found = first_of([found, sums.top(k)], k)
    return found


class InfluenceSums:
    """Sums of contributions for a block of ids, by chunks of steps; holds (ids, Q) float64 and a flag per id.

    Chunks in order give the bytes of the one-shot form. `merge` adds in another order and is exact up to rounding.

    Parameters
    ----------
    ids : (N,) integer, distinct; other examples are ignored
    n_queries : Q
    """

    def __init__(self, ids: NDArray[np.integer], n_queries: int) -> None:
        self.ids = np.sort(check_integers("ids", ids))
        if (np.diff(self.ids) == 0).any():
            raise ValueError("ids: expected distinct ids, found an id twice")
        self.sums = np.zeros((len(self.ids), n_queries))
        self.seen = np.zeros(len(self.ids), bool)

    def update(self, gamma: NDArray[np.floating], members: Sequence[NDArray[np.integer]]) -> None:
        """Add the contributions of the next steps.

        Parameters
        ----------
        gamma : (Q, t) float
        members : t integer arrays, all members of each step; a step is split over all, also those of other blocks
        """
        values = check_values("gamma", gamma, 2)
        if len(values) != self.sums.shape[1]:
            raise ValueError(f"gamma: expected {self.sums.shape[1]} queries, found shape {values.shape}")
        steps = _check_members(members, values.shape[1])
        if not len(self.ids) or not steps:
            return
        lengths = np.array([len(step) for step in steps])
        flat = np.concatenate(steps)
        places = np.minimum(np.searchsorted(self.ids, flat), len(self.ids) - 1)
        mine = self.ids[places] == flat
        rows, columns = places[mine], np.repeat(np.arange(len(steps)), lengths)[mine]
        self.seen[rows] = True
        shares = values.T / np.maximum(lengths, 1)[:, None]
        self.sums = _added(self.sums, shares, rows, columns)

    def merge(self, other: Self) -> Self:
        """Add the sums of another instance (same ids, other steps), which is not changed. Returns this instance."""
        if not np.array_equal(self.ids, other.ids) or self.sums.shape != other.sums.shape:
            raise ValueError("merge: expected the same ids and number of queries in both")
        self.sums = self.sums + other.sums
        self.seen |= other.seen
        return self

    def top(self, k: int) -> Influential:
        """Return the k examples of largest sum per query, decreasing, equal sums by smaller id."""
        _check_count(k)
        return _first(self.ids[self.seen], self.sums[self.seen].T, k)

    def bottom(self, k: int) -> Influential:
        """Return the k examples of smallest sum per query, increasing, equal sums by smaller id."""
        _check_count(k)
        return _negated(_first(self.ids[self.seen], -self.sums[self.seen].T, k))


def first_of(parts: Sequence[Influential], k: int, *, lowest: bool = False) -> Influential:
    """Join the results of disjoint blocks of ids.

    Parameters
    ----------
    parts : at least one; each holds the first k of its block, or all where it has fewer
    k : examples per query
    lowest : whether the parts come from `bottom`
    """
    ids = np.concatenate([part.ids for part in parts], axis=1)
    sums = np.concatenate([part.sums for part in parts], axis=1)
    if lowest:
        return _negated(_sorted(ids, -sums, k))
    return _sorted(ids, sums, k)


def _added(sums: Doubles, shares: Doubles, rows: Ids, columns: Ids) -> Doubles:
    """Add shares (t, Q) to the sums (N, Q) of some rows, each row in the order of the steps."""
    n, t = len(sums), len(shares)
    old = sparse.eye_array(n, format="csr")
    pairs = sparse.coo_array((np.ones(len(rows)), (rows, columns)), shape=(n, t)).tocsr()
    both = sparse.hstack([old, pairs], format="csr")
    found: Doubles = both @ np.concatenate([sums, shares])
    return found


def _first(ids: Ids, sums: Doubles, k: int) -> Influential:
    """Return the k largest of sums (Q, N) over rising ids."""
    if 0 < k < sums.shape[1]:  # only values from the k-th on are sorted; all ties at the cut are kept until then
        cut = np.partition(sums, sums.shape[1] - k, axis=1)[:, [sums.shape[1] - k]]
        kept = (sums >= cut).any(axis=0)
        ids, sums = ids[kept], sums[:, kept]
    return _sorted(np.broadcast_to(ids, sums.shape), sums, k)


def _sorted(ids: Ids, sums: Doubles, k: int) -> Influential:
    """Sort (Q, N) by falling sum, then rising id, and keep k."""
    order = np.lexsort((ids, -sums), axis=1)[:, :k]
    return Influential(np.take_along_axis(ids, order, axis=1), np.take_along_axis(sums, order, axis=1))


def _negated(found: Influential) -> Influential:
    """Return influential examples with the signs of their sums restored."""
    return Influential(found.ids, 0.0 - found.sums)


def _check_members(members: Sequence[NDArray[np.integer]], n_steps: int) -> list[Ids]:
    """Check that members are an integer vector per step."""
    if len(members) != n_steps:
        raise ValueError(f"members: expected an array per step, {n_steps}, found {len(members)}")
    empty = np.empty(0, np.int64)
    return [check_integers(f"members[{t}]", step) if len(step) else empty for t, step in enumerate(members)]


def _check_count(k: int) -> None:
    """Check the requested number of examples."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise ValueError(f"k: expected an integer of at least 1, found {k!r}")
