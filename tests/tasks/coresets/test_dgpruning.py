"""The density and graph coreset."""

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.coresets import neighbors
from tasks.coresets.dgpruning import select_dgpruning
from tasks.coresets.neighbors import neighbor_graph
from tasks.coresets.selection import Floats


def slow_order(
    features: NDArray[np.float64],
    size: int,
    *,
    k: int = 5,
    gamma_r: float = 0.1,
    gamma_f: float = 1.0,
    combine: str = "sum",
    message: str = "weighted",
    unit: float = 1.0,
) -> list[int]:
    """Follow the description number by number."""
    n = len(features)
    score = [float(np.sqrt(((row - features.mean(axis=0)) ** 2).sum())) for row in features]
    distance = [[float(np.sqrt(((a - b) ** 2).sum())) for b in features] for a in features]
    nearest = [sorted((distance[i][j], j) for j in range(n) if j != i)[: min(k, n - 1)] for i in range(n)]
    near: list[set[int]] = [set() for _ in range(n)]
    for i in range(n):
        for _, j in nearest[i]:
            near[i].add(j)
            near[j].add(i)
    density = []
    for i in range(n):
        received = sum(np.exp(-gamma_f * distance[i][j] / unit) * max(score[j], 1e-7) for j in sorted(near[i]))
        density.append(score[i] + received if combine == "sum" else score[i] * received)
    order: list[int] = []
    while len(order) < size:
        i = max((i for i in range(n) if i not in order), key=lambda i: (density[i], -i))
        for j in near[i]:
            share = np.exp(-gamma_r * distance[i][j] / unit) if message == "weighted" else 1.0
            density[j] -= share * density[i]
        order.append(i)
    return order


@pytest.mark.parametrize("n", [2, 5, 40])
@pytest.mark.parametrize("combine", ["sum", "product"])
@pytest.mark.parametrize("message", ["weighted", "absolute"])
def test_the_order_is_that_of_the_description(n: int, combine: str, message: str) -> None:
    for seed, k in itertools.product(range(2), (1, 3, 50)):
        features = np.random.default_rng(seed).normal(size=(n, 4)) * 0.5
        options: dict[str, Any] = {"k": k, "gamma_r": 0.3, "gamma_f": 0.7, "combine": combine, "message": message}
        found = select_dgpruning(features, 1.0, **options).order
        np.testing.assert_array_equal(found, slow_order(features, n, **options))


def test_four_samples_by_hand() -> None:
    features = np.array([[0.0], [1.0], [3.0], [8.0]])  # mean 3: scores 3 2 0 5; neighbours 0-1, 1-2, 2-3 with k = 1
    decay = np.exp(-np.array([1.0, 2.0, 5.0]))
    density = [3 + 2 * decay[0], 2 + 3 * decay[0] + 1e-7 * decay[1], 2 * decay[1] + 5 * decay[2], 5 + 1e-7 * decay[2]]
    assert np.argmax(density) == 3
    density[2] -= np.exp(-0.5) * density[3]
    assert np.argmax(density[:3]) == 0
    density[1] -= np.exp(-0.1) * density[0]
    assert density[1] > density[2]
    selection = select_dgpruning(features, 1.0, k=1)
    np.testing.assert_array_equal(selection.order, [3, 0, 1, 2])
    assert selection.info == {"median_distance": 1.5}  # of 1, 1, 2 and 5
    np.testing.assert_array_equal(select_dgpruning(features, 0.5, k=1).kept, [0, 3])


def test_messages_by_hand() -> None:
    features = np.array([[0.0], [1.0], [10.0], [11.0]])  # mean 5.5: scores 5.5 4.5 4.5 5.5
    # The pairs 0-1 and 2-3 are neighbours. 0 and 3 tie and 0 is lower. 1 falls by its share, then 3 is largest.
    np.testing.assert_array_equal(select_dgpruning(features, 1.0, k=1).order, [0, 3, 1, 2])
    # Without decay 1 falls from 4.5 + 5.5/e to 4.5 + 5.5/e - (5.5 + 4.5/e) < 0, and both pairs do the same.
    np.testing.assert_array_equal(select_dgpruning(features, 1.0, k=1, message="absolute").order, [0, 3, 1, 2])
    # With a steep decay nothing is lowered: falling densities alone decide.
    np.testing.assert_array_equal(select_dgpruning(features, 0.75, k=1, gamma_r=1e3).order, [0, 3, 1])


def test_neighbours_are_by_distance_then_index_and_both_ways() -> None:
    line = np.arange(5.0)[:, None]
    graph = neighbor_graph(line, 1)  # 0-1, 1-0, 2-1, 3-2, 4-3: of two at distance 1 the lower index
    pairs = np.column_stack([np.repeat(np.arange(5), np.diff(graph.start)), graph.index])
    np.testing.assert_array_equal(pairs, [[0, 1], [1, 0], [1, 2], [2, 1], [2, 3], [3, 2], [3, 4], [4, 3]])
    np.testing.assert_array_equal(graph.distance, np.ones(8))
    assert graph.median == 1.0


@pytest.mark.parametrize("kind", ["plain", "far from the origin", "tight groups", "equal rows", "tiny", "huge", "grid"])
def test_neighbours_are_exact(kind: str) -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(90, 6))
    values = {
        "plain": values,
        "far from the origin": 1e6 + values,
        "tight groups": 100 * rng.integers(0, 3, (90, 1)) + 1e-9 * values,  # equal in single precision
        "equal rows": np.ones((90, 6)),
        "tiny": 1e-100 * values,
        "huge": 1e150 * values,
        "grid": rng.integers(0, 3, (90, 6)).astype(np.float64),
    }[kind]
    distance = np.sqrt(((values[:, None] - values) ** 2).sum(axis=2))
    np.fill_diagonal(distance, np.inf)
    nearest = np.argsort(distance, axis=1, kind="stable")[:, :4]
    linked = np.zeros((90, 90), dtype=bool)
    np.put_along_axis(linked, nearest, True, axis=1)
    linked |= linked.T
    graph = neighbor_graph(values, 4)
    row, column = np.nonzero(linked)
    np.testing.assert_array_equal(graph.start, np.searchsorted(row, np.arange(91)))
    np.testing.assert_array_equal(graph.index, column)
    np.testing.assert_allclose(graph.distance, distance[row, column], rtol=1e-9)


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    features = np.random.default_rng(4).normal(size=(70, 9))
    whole = select_dgpruning(features, 0.6).order
    monkeypatch.setattr(neighbors, "BLOCK_VALUES", 70 * 8)
    np.testing.assert_array_equal(select_dgpruning(features, 0.6).order, whole)


def test_shifts_and_reflections_change_nothing() -> None:
    features = np.random.default_rng(5).normal(size=(50, 4))
    order = select_dgpruning(features, 0.5).order
    np.testing.assert_array_equal(select_dgpruning(7.0 - features[:, ::-1], 0.5).order, order)


def test_large_distances_give_farthest_first_and_the_scale_mends_it() -> None:
    features = np.random.default_rng(6).normal(size=(60, 5))
    farthest = np.argsort(-np.linalg.norm(features - features.mean(axis=0), axis=1), kind="stable")
    large = select_dgpruning(1e4 * features, 1.0)
    np.testing.assert_array_equal(large.order, farthest)
    unit = large.info["median_distance"]
    np.testing.assert_allclose(unit, 1e4 * select_dgpruning(features, 1.0).info["median_distance"])
    scaled = select_dgpruning(1e4 * features, 1.0, scale="median").order
    np.testing.assert_array_equal(scaled, slow_order(1e4 * features, 60, unit=unit))
    np.testing.assert_array_equal(scaled, select_dgpruning(features, 1.0, scale="median").order)
    assert not np.array_equal(scaled, farthest)


@pytest.mark.parametrize(("n", "rho", "size"), [(10, 0.25, 2), (10, 0.35, 4), (7, 0.01, 1), (9, 0.5, 4)])
def test_the_number_is_rounded_half_to_even(n: int, rho: float, size: int) -> None:
    features: Floats = np.random.default_rng(8).normal(size=(n, 3))
    assert len(select_dgpruning(features, rho).kept) == size
    assert len(select_dgpruning(features, rho, min_per_class=6).kept) == max(6, size)


def test_one_row_and_equal_rows() -> None:
    assert select_dgpruning(np.ones((1, 2)), 0.1, scale="median").info == {}
    equal = select_dgpruning(np.ones((6, 2)), 0.5, scale="median")  # a median of 0 scales nothing
    np.testing.assert_array_equal(equal.kept, [0, 1, 2])
    assert equal.info == {"median_distance": 0.0}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"k": 0}, "k: expected at least 1, found 0"),
        ({"k": 2.0}, "k: expected an integer, found 2.0"),
        ({"gamma_r": -1}, "gamma_r: expected a finite number of at least 0, found -1"),
        ({"gamma_f": float("nan")}, "gamma_f: expected a finite number of at least 0, found nan"),
        ({"gamma_f": "1"}, "gamma_f: expected a number, found '1'"),
        ({"combine": "mean"}, "combine: expected 'sum' or 'product', found 'mean'"),
        ({"message": "none"}, "message: expected 'weighted' or 'absolute', found 'none'"),
        ({"scale": 2}, "scale: expected 'none' or 'median', found 2"),
        ({"min_per_class": 0}, "min_per_class: expected at least 1, found 0"),
    ],
)
def test_bad_parameters_are_named(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        select_dgpruning(np.ones((1, 2)), 0.5, **parameters)
