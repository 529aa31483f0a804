"""The density and graph coreset (D2 pruning, Maharana et al. 2024) with the distance to the class centre as score."""

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tasks.coresets.moderate import distance_to_center
from tasks.coresets.neighbors import Graph, neighbor_graph
from tasks.coresets.selection import Floats, Seed, Selection, check_budget, check_count, check_features

LEAST_SCORE = 1e-7  # of a neighbour, in the forward pass
Combine = Literal["sum", "product"]
Message = Literal["weighted", "absolute"]
Scale = Literal["none", "median"]


def select_dgpruning(
    features: Floats,
    rho: float,
    *,
    seed: Seed = 0,
    k: int = 5,
    gamma_r: float = 0.1,
    gamma_f: float = 1.0,
    combine: Combine = "sum",
    message: Message = "weighted",
    scale: Scale = "none",
    min_per_class: int = 1,
) -> Selection:
    """Keep the samples of one class with the largest density, each of which lowers that of its neighbours.

    Parameters
    ----------
    features : (n, d) float, one class's pooled activations
    rho : share to keep, 0 < rho <= 1; max(1, round(rho n)) samples, half to even
    seed : unused, part of the selector protocol
    k : number of nearest neighbours, cut to n - 1
    gamma_r : rate at which the lowering falls with distance, >= 0
    gamma_f : rate at which a neighbour's score counts less with distance, >= 0
    combine : a sample's score and its neighbours' are added ("sum") or multiplied ("product")
    message : the lowering falls with distance ("weighted") or is the whole density ("absolute")
    scale : distances in exponentials as they are ("none") or divided by the median distance to a neighbour ("median")
    min_per_class : least number of rows (or all n)

    Returns
    -------
    Selection, `order` as chosen; `info` has the median distance to a neighbour (none with one row)

    Notes
    -----
    Maharana et al. 2024, equations 2 to 4. Distances are Euclidean, not squared. Where they are large, exponentials
    vanish, and the method keeps the samples farthest from the centre. Densities may fall below 0. Ties go to the lower
    index. A smaller budget keeps a prefix of the order of a larger one.
    """
    values, rho = check_features(features), check_budget(rho)
    n, k = len(values), check_count("k", k)
    _check(gamma_r, gamma_f, combine, message, scale)
    size = max(1, round(rho * n), min(check_count("min_per_class", min_per_class), n))
    if n == 1:
        return Selection.of(np.zeros(1, np.int64))
    score = distance_to_center(values, "mean")
    graph = neighbor_graph(values, min(k, n - 1))
    unit = graph.median if scale == "median" and graph.median > 0 else 1.0
    density = _densities(score, graph, gamma_f / unit, combine)
    weight = np.exp(-gamma_r / unit * graph.distance) if message == "weighted" else np.ones_like(graph.distance)
    return Selection.of(_greedy(density, graph, weight, size), {"median_distance": graph.median})


def _densities(score: NDArray[np.float64], graph: Graph, gamma: float, combine: Combine) -> NDArray[np.float64]:
    """Return the densities (n,) after one forward pass; every row has at least one neighbour."""
    terms = np.exp(-gamma * graph.distance) * np.maximum(score[graph.index], LEAST_SCORE)
    received = np.add.reduceat(terms, graph.start[:-1])
    return score + received if combine == "sum" else score * received


def _greedy(density: NDArray[np.float64], graph: Graph, weight: NDArray[np.float64], size: int) -> NDArray[np.int64]:
    """Return the first `size` rows by falling density; each choice lowers the densities of its neighbours."""
    left, order = density.copy(), np.empty(size, np.int64)
    start, index = graph.start.tolist(), graph.index
    for turn in range(size):
        order[turn] = row = int(left.argmax())
        part = slice(start[row], start[row + 1])
        left[index[part]] -= weight[part] * left[row]  # neighbours that left the contest stay at -inf
        left[row] = -np.inf
    return order


def _check(gamma_r: float, gamma_f: float, combine: str, message: str, scale: str) -> None:
    """Raise an error that names a parameter out of range."""
    for name, rate in (("gamma_r", gamma_r), ("gamma_f", gamma_f)):
        if isinstance(rate, bool) or not isinstance(rate, int | float | np.integer | np.floating):
            raise TypeError(f"{name}: expected a number, found {rate!r}")
        if not (rate >= 0 and math.isfinite(rate)):
            raise ValueError(f"{name}: expected a finite number of at least 0, found {rate!r}")
    choices = {"combine": ("sum", "product"), "message": ("weighted", "absolute"), "scale": ("none", "median")}
    for name, value in (("combine", combine), ("message", message), ("scale", scale)):
        if value not in choices[name]:
            raise ValueError(f"{name}: expected {' or '.join(map(repr, choices[name]))}, found {value!r}")
