"""How much of its images a class's few features hold."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.decomposition import Coverage, share_of_histogram

Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]


def by_loops(x: Doubles, y: Integers, indices: Integers, weight: Doubles, tops: list[int]) -> list[list[float]]:
    """Mean shares by class: l1, contribution, one per top."""
    rows = []
    for label in range(len(indices)):
        shares: list[list[float]] = [[] for _ in range(2 + len(tops))]
        for row in x[y == label]:
            magnitude, helping = abs(row), np.maximum(weight[label] * row, 0)
            if magnitude.sum():
                shares[0].append(magnitude[indices[label]].sum() / magnitude.sum())
                for i, top in enumerate(tops):
                    shares[2 + i].append(sum(sorted(magnitude)[-top:]) / magnitude.sum())
            if helping.sum():
                shares[1].append(helping[indices[label]].sum() / helping.sum())
        rows.append([float(np.mean(one)) if one else float("nan") for one in shares])
    return rows


def test_worked_by_hand() -> None:
    coverage = Coverage(np.array([[0, 1], [1, 2]]), np.array([[1.0, -1.0, 2.0], [0.0, 0.0, -1.0]]), tops=[1])
    features = np.array([[3.0, 1.0, 4.0], [0.0, 0.0, 0.0], [1.0, 1.0, 2.0]], dtype=np.float32)
    coverage.update(features, np.array([0, 0, 1]))
    np.testing.assert_allclose(coverage.l1_shares(), [0.5, 0.75])  # the image of zeros has no share
    np.testing.assert_allclose(coverage.contribution_shares(), [3 / 11, np.nan])  # 3, -1, 8; nothing speaks for class 1
    np.testing.assert_allclose(coverage.top_shares(), [[0.5], [0.5]])
    np.testing.assert_array_equal(coverage.images, [[1, 1, 1], [1, 0, 1]])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_it_is_what_loops_find(dtype: str) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(-3, 4, (90, 12)).astype(dtype), rng.integers(0, 4, 90)  # class 4 without images
    x[:5] = 0
    weight, indices = rng.normal(size=(5, 12)), np.argsort(rng.random((5, 12)), axis=1)[:, :4]
    coverage = Coverage(indices, weight, tops=[1, 5, 12])
    before = x.copy()
    coverage.update(x, y)
    found = np.column_stack([coverage.l1_shares(), coverage.contribution_shares(), coverage.top_shares()])
    expected = by_loops(x.astype(np.float64), y, indices, weight, [1, 5, 12])
    np.testing.assert_allclose(found, expected, rtol=1e-13)
    np.testing.assert_array_equal(found[:4, 4], 1)
    np.testing.assert_array_equal(x, before)


def test_the_features_that_matter_hold_all() -> None:
    rng = np.random.default_rng(1)
    x = np.zeros((20, 8), dtype=np.float32)
    y = rng.integers(0, 2, 20)
    indices = np.array([[0, 1], [5, 7]])
    np.put_along_axis(x, indices[y], rng.random((20, 2)).astype(np.float32), axis=1)
    coverage = Coverage(indices, np.ones((2, 8)), tops=[2])
    coverage.update(x, y)
    np.testing.assert_array_equal(coverage.l1_shares(), 1)
    np.testing.assert_array_equal(coverage.contribution_shares(), 1)
    np.testing.assert_array_equal(coverage.top_shares(), 1)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("d", [3, 300])
def test_chunks_and_the_order_of_merging_change_no_byte(d: int, order: Any) -> None:  # Any: NumPy's literals
    rng = np.random.default_rng(d)
    x = np.asarray(rng.lognormal(0, 5, (120, d)), dtype=np.float32, order=order)
    y = rng.integers(0, 3, 120)
    weight, indices = rng.normal(size=(3, d)), np.argsort(rng.random((3, d)), axis=1)[:, :2]

    def fresh() -> Coverage:
        return Coverage(indices, weight, tops=[2])

    whole = fresh()
    whole.update(x, y)
    for _ in range(5):
        parts = []
        for rows in np.split(rng.permutation(120), np.sort(rng.integers(0, 120, rng.integers(1, 60)))):
            parts.append(fresh())
            parts[-1].update(x[rows], y[rows])
        joined = fresh().restore(parts.pop().state())
        for part in rng.permutation(len(parts)):
            joined.merge(parts[part])
        for key, array in whole.state().items():
            assert joined.state()[key].tobytes() == array.tobytes(), key
        assert joined.l1_shares().tobytes() == whole.l1_shares().tobytes()


def test_the_share_of_the_histogram() -> None:
    counts = np.array([[4, 3, 2, 1], [0, 0, 0, 5], [0, 0, 0, 0]])
    indices = np.array([[0, 2], [0, 1], [2, 3]])
    np.testing.assert_allclose(share_of_histogram(counts, indices), [0.6, 0, np.nan])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Coverage(np.array([[0]]), np.zeros(3)), r"weight: expected shape \(C, d\), found \(3,\)"),
        (lambda: Coverage(np.array([[0]]), np.zeros((2, 3))), r"indices: expected shape \(2, k\)"),
        (lambda: Coverage(np.array([[0]]), np.zeros((1, 3)), tops=[4]), r"tops: expected 1\.\.3, found 4"),
        (
            lambda: Coverage(np.array([[0]]), np.zeros((1, 3))).merge(Coverage(np.array([[1]]), np.zeros((1, 3)))),
            "merge: expected the same indices, weight and tops in both",
        ),
        (
            lambda: Coverage(np.array([[0]]), np.zeros((1, 3))).restore(
                Coverage(np.array([[0]]), np.zeros((1, 3)), tops=[1]).state()
            ),
            r"state: expected images of shape \(1, 2\), found \(1, 3\)",
        ),
    ],
)
def test_bad_parameters_are_refused(make: Any, message: str) -> None:  # Any: each calls something else
    with pytest.raises(ValueError, match=message):
        make()
