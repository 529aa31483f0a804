"""Scores that know nothing of the training: an influence score should predict better than these.

Each is a table (Q, N), a score of every training example for every query. Larger means that the example helps.
"""

import numpy as np
from numpy.typing import NDArray

from tasks.tracing.checks import Doubles, check_integers, check_values

NEIGHBOURS = 5  # K of KNN-Shapley
BLOCK = 256  # examples with neighbours that are looked for at a time
WIDTH_RANK = 10  # the neighbour with a distance that sets the width of a kernel


def same_class(query_classes: NDArray[np.integer], labels: NDArray[np.integer]) -> Doubles:
    """Return 1 for examples of the query's class, else 0.

    Parameters
    ----------
    query_classes : (Q,) integer
    labels : (N,) integer

    Returns
    -------
    (Q, N) float64
    """
    classes, given = check_integers("query_classes", query_classes), check_integers("labels", labels)
    found: Doubles = (classes[:, None] == given).astype(np.float64)
    return found


def nearest_signed(
    queries: NDArray[np.floating],
    query_classes: NDArray[np.integer],
    examples: NDArray[np.floating],
    labels: NDArray[np.integer],
) -> Doubles:
    """Return the similarity of each example to the query, negative for examples of another class.

    Parameters
    ----------
    queries : (Q, d) float, pixels or features
    query_classes : (Q,) integer
    examples : (N, d) float
    labels : (N,) integer

    Returns
    -------
    (Q, N) float64: exp(-d^2 / 2 s^2) with a sign, where s is the median distance of the queries' tenth neighbours
    """
    distance = _distances(queries, examples)
    rank = min(WIDTH_RANK, distance.shape[1]) - 1
    width = float(np.median(np.partition(distance, rank, axis=1)[:, rank])) or 1.0
    sign = 2 * same_class(query_classes, labels) - 1
    found: Doubles = sign * np.exp(-(distance**2) / (2 * width**2))
    return found


def knn_shapley(
    queries: NDArray[np.floating],
    query_classes: NDArray[np.integer],
    examples: NDArray[np.floating],
    labels: NDArray[np.integer],
    *,
    k: int = NEIGHBOURS,
) -> Doubles:
    """Return the exact Shapley value of each example for a classifier by k nearest neighbours.

    Parameters
    ----------
    queries, query_classes, examples, labels : as in `nearest_signed`
    k : number of neighbours

    Returns
    -------
    (Q, N) float64; a query's values add up to the share of its k nearest neighbours that have its class

    Notes
    -----
    Jia et al. 2019, theorem 1: from the farthest example to the nearest, with equal distances by lower index.
    """
    if k < 1:
        raise ValueError(f"k: expected at least 1 neighbour, found {k}")
    order = np.argsort(_distances(queries, examples), axis=1, kind="stable")
    right = np.take_along_axis(same_class(query_classes, labels), order, axis=1)
    n = right.shape[1]
    rank = np.arange(1, n)
    steps = np.diff(right, axis=1) * np.minimum(k, rank) / (k * rank)  # of i + 1 against i
    last = right[:, -1:] * min(k, n) / (k * n)
    # s_i = s_N - sum of the steps from i on
    rest = np.concatenate([np.cumsum(steps[:, ::-1], axis=1)[:, ::-1], np.zeros((len(right), 1))], axis=1)
    found = np.empty_like(right)
    np.put_along_axis(found, order, last - rest, axis=1)
    return found


def neighbours_disagreement(examples: NDArray[np.floating], labels: NDArray[np.integer], *, k: int = 10) -> Doubles:
    """Return the share of each example's k nearest other examples that have another label.

    Parameters
    ----------
    examples : (N, d) float, N at least 2
    labels : (N,) integer
    k : number of neighbours; at most N - 1 are used

    Returns
    -------
    (N,) float64, 0 to 1; high for labels that are probably wrong

    Notes
    -----
    Holds (BLOCK, N) float64 distances at a time, from a matrix product.
    """
    values = check_values("examples", examples, 2)
    given = check_integers("labels", labels, len(values))
    if len(values) < 2:
        raise ValueError(f"examples: expected at least 2, found {len(values)}")
    count = min(k, len(values) - 1)
    centred = values - values.mean(axis=0)  # a product of large numbers would lose the small distances
    norms = (centred**2).sum(axis=1)
    found = np.empty(len(values))
    for start in range(0, len(values), BLOCK):
        rows = slice(start, start + BLOCK)
        distance = norms - 2 * centred[rows] @ centred.T
        distance[np.arange(len(distance)), np.arange(start, start + len(distance))] = np.inf
        nearest = np.argpartition(distance, count - 1, axis=1)[:, :count]
        found[rows] = (given[nearest] != given[rows, None]).mean(axis=1)
    return found


def _distances(queries: NDArray[np.floating], examples: NDArray[np.floating]) -> Doubles:
    """Return Euclidean distances (Q, N), row by row: holds (N, d) float64 at a time."""
    first, second = check_values("queries", queries, 2), check_values("examples", examples, 2)
    if first.shape[1] != second.shape[1] or not len(second):
        raise ValueError(f"queries, examples: expected (Q, d) and (N, d), found {first.shape} and {second.shape}")
    return np.stack([np.sqrt(((second - row) ** 2).sum(axis=1)) for row in first])
