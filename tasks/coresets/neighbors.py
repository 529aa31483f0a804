"""Exact nearest neighbours among the rows of one matrix, from candidates of one matrix product."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK_VALUES = 4_000_000  # products in memory at once
FEW = 4  # candidates per row, relative to k + 1, up to which single precision decides who is a candidate


@dataclass(frozen=True)
class Graph:
    """A symmetric graph of neighbours: the neighbours of row i are `index[start[i] : start[i + 1]]`.

    Attributes
    ----------
    start : (n + 1,) int64
    index : (m,) int64, ascending within a row
    distance : (m,) float64
    median : median distance of a row to its k nearest neighbours, before the graph was made symmetric
    """

    start: NDArray[np.int64]
    index: NDArray[np.int64]
    distance: NDArray[np.float64]
    median: float


def neighbor_graph(values: NDArray[np.float64], k: int) -> Graph:
    """Join each row with its k nearest other rows; i and j are neighbours if either is among the other's nearest.

    Parameters
    ----------
    values : (n, d) float64, n >= 2
    k : 1 <= k <= n - 1; equal distances go to the lower index

    Returns
    -------
    Graph; distances are computed from differences, so that equal distances are equal exactly

    Notes
    -----
    A product of all pairs gives distances with a known bound of their rounding errors. Only pairs that these bounds
    leave open are computed from their differences. Holds a block of products and its copies, not (n, n).
    """
    n = len(values)
    nearest = np.empty((n, k), np.int64)
    distance = np.empty((n, k))
    for row, candidates in enumerate(_candidates(values, k)):
        difference = values[candidates]
        difference -= values[row]
        exact = np.sqrt(np.einsum("ij,ij->i", difference, difference))
        order = np.argsort(exact, kind="stable")[:k]  # candidates ascend, so ties go to the lower index
        nearest[row], distance[row] = candidates[order], exact[order]
    near, far = np.repeat(np.arange(n), k), nearest.ravel()
    pairs, first = np.unique(np.concatenate([near * n + far, far * n + near]), return_index=True)
    both = np.concatenate([distance.ravel(), distance.ravel()])[first]
    start = np.searchsorted(pairs, np.arange(n + 1) * n)
    return Graph(start.astype(np.int64), pairs % n, both, float(np.median(distance)))


def _candidates(values: NDArray[np.float64], k: int) -> Iterator[NDArray[np.int64]]:
    """Yield for each row the ascending indices of rows that may be among its k nearest."""
    centred = values - values.mean(axis=0)
    largest = max(float(centred.max()), -float(centred.min()))
    if largest > 0:  # magnitudes near 1 keep squares in the range of single precision
        centred *= 2.0 ** min(-int(np.frexp(largest)[1]), 1000)
    single, size = centred.astype(np.float32), max(1, BLOCK_VALUES // len(values))
    for start in range(0, len(values), size):
        rows = slice(start, start + size)
        found = _possible(single, rows, k)
        if np.count_nonzero(found) > FEW * (k + 1) * len(found):
            found = _possible(centred, rows, k)  # rows lie close together, far from the mean
        row, column = np.nonzero(found)
        yield from np.split(column, np.searchsorted(row, np.arange(1, len(found))))


def _possible(values: NDArray[np.floating], rows: slice, k: int) -> NDArray[np.bool_]:
    """Return (b, n) booleans: whether a row of a block may have each row among its k nearest others."""
    norm = np.linalg.norm(values, axis=1)
    square = norm**2
    product = values[rows] @ values.T
    # |computed - true| of a squared distance: products of d terms, two sums, and the rounding of the values themselves.
    bound = (2 * values.shape[1] + 16) * float(np.finfo(values.dtype).eps)
    slack = bound * (norm[rows, None] + norm) ** 2
    squared = square[rows, None] + square - 2 * product
    own = np.arange(len(squared)), np.arange(len(values))[rows]
    squared[own] = np.inf
    upper = np.partition(squared + slack, k - 1, axis=1)[:, k - 1]
    possible: NDArray[np.bool_] = squared - slack <= upper[:, None]
    possible[own] = False
    return possible
