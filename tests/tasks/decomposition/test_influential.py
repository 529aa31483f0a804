"""The influential features of every class."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from tasks.decomposition import influential_features, pick_sets

Floats = NDArray[np.floating]
Integers = NDArray[np.int64]


def by_loops(
    features: Floats, labels: Integers, k1: int, k2: int, n_classes: int
) -> tuple[Integers, Integers, list[bool]]:
    """Sets, counts and ties at the cut, by the definition."""
    d = features.shape[1]
    counts, sums = np.zeros((n_classes, d), dtype=np.int64), np.zeros((n_classes, d))
    for x, y in zip(np.abs(features.astype(np.float64)), labels, strict=True):
        sums[y] += x
        for j in sorted(range(d), key=lambda j: (-x[j], j))[:k1]:
            counts[y, j] += 1
    orders = [sorted(range(d), key=lambda j: (-counts[y, j], -sums[y, j], j)) for y in range(n_classes)]
    ties = [k2 < d and bool(counts[y, order[k2 - 1]] == counts[y, order[k2]]) for y, order in enumerate(orders)]
    return np.array(orders)[:, :k2], counts, ties


def planted(rng: np.random.Generator, sets: Integers, d: int, n: int) -> tuple[Floats, Integers]:
    """Features after ReLU in which each class's own are strong in most of its images, others now and then."""
    labels = rng.integers(0, len(sets), n)
    features = np.maximum(rng.normal(0, 0.5, (n, d)), 0).astype(np.float32)
    for x, y in zip(features, labels, strict=True):
        x[sets[y][rng.random(sets.shape[1]) < 0.9]] += 2
        x[rng.integers(0, d, 2)] += 3  # loud, but no class's own
    return features, labels


def test_worked_by_hand() -> None:
    features = np.array(
        [
            [5, 4, 1, 0],  # class 0: 0 and 1
            [5, 1, 4, 0],  # 0 and 2
            [0, 0, 9, 8],  # 2 and 3
            [3, 3, 3, 3],  # class 1: all equal, 0 and 1
        ]
    )
    found = influential_features(features, np.array([0, 0, 0, 1]), 2, 3, 3)
    # class 0: counts 2 1 2 1, sums 10 5 14 8; class 1: counts 1 1 0 0, sums equal; class 2 without images
    np.testing.assert_array_equal(found.indices, [[2, 0, 3], [0, 1, 2], [0, 1, 2]])
    np.testing.assert_array_equal(found.counts, [[2, 1, 2, 1], [1, 1, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(found.tie_at_cut, [True, True, True])
    assert [str(one.dtype) for one in (found.indices, found.counts, found.tie_at_cut)] == ["int64", "int64", "bool"]
    shorter = influential_features(features, np.array([0, 0, 0, 1]), 2, 2, 3)
    np.testing.assert_array_equal(shorter.tie_at_cut, [False, False, True])
    whole = influential_features(features, np.array([0, 0, 0, 1]), 2, 4, 3)
    assert not whole.tie_at_cut.any()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(("k1", "k2"), [(1, 1), (3, 5), (5, 3), (12, 12), (1, 12), (12, 4)])
def test_it_is_what_loops_find(k1: int, k2: int, dtype: str) -> None:
    rng = np.random.default_rng(k1 * 100 + k2)
    features = rng.integers(-4, 5, (70, 12)).astype(dtype)
    labels = np.r_[rng.integers(0, 3, 69), 4]  # class 3 without images, class 4 with one
    before = features.copy()
    found = influential_features(features, labels, k1, k2, 5)
    indices, counts, ties = by_loops(features, labels, k1, k2, 5)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_array_equal(found.counts, counts)
    np.testing.assert_array_equal(found.tie_at_cut, ties)
    np.testing.assert_array_equal(found.counts.sum(axis=1), k1 * np.bincount(labels, minlength=5))
    np.testing.assert_array_equal(features, before)
    assert found.signed


def test_planted_features_are_found() -> None:
    rng = np.random.default_rng(0)
    sets = np.stack([rng.permutation(64)[:5] for _ in range(10)])
    features, labels = planted(rng, sets, 64, 3000)
    found = influential_features(features, labels, 5, 5, 10)
    np.testing.assert_array_equal(np.sort(found.indices), np.sort(sets))
    assert not found.tie_at_cut.any()
    assert not found.signed
    again = influential_features(features, labels, 0.5, 5, 10)  # by coverage
    np.testing.assert_array_equal(np.sort(again.indices), np.sort(sets))


def test_smaller_sets_are_prefixes() -> None:
    rng = np.random.default_rng(1)
    features, labels = rng.integers(0, 3, (40, 9)).astype(np.float32), rng.integers(0, 3, 40)
    whole = influential_features(features, labels, 2, 9, 3).indices
    for k2 in range(1, 9):
        np.testing.assert_array_equal(influential_features(features, labels, 2, k2, 3).indices, whole[:, :k2])


def test_features_never_picked_follow_by_size_and_index() -> None:
    features = np.array([[9, 1, 2, 0, 0], [9, 1, 2, 0, 0]], dtype=np.float32)
    found = influential_features(features, np.zeros(2, dtype=np.int64), 1, 5, 1)
    np.testing.assert_array_equal(found.indices, [[0, 2, 1, 3, 4]])
    np.testing.assert_array_equal(found.counts, [[2, 0, 0, 0, 0]])


def test_signed_features_by_magnitude_value_and_contribution() -> None:
    features = np.array([[-9.0, 3.0, 2.0, 0.0]])
    label, weight = np.array([0]), np.array([[1.0, 0.5, 2.0, 5.0]])
    firsts = {
        rank_by: influential_features(features, label, 1, 1, 1, rank_by=rank_by, weight=weight).indices.tolist()
        for rank_by in ("abs", "value", "contribution")
    }
    assert firsts == {"abs": [[0]], "value": [[1]], "contribution": [[2]]}  # 4 = 2 * 2 beats 1.5 and -9
    assert influential_features(features, label, 1, 1, 1).signed
    assert not influential_features(abs(features), label, 1, 1, 1).signed


def test_the_scale_of_features_changes_nothing() -> None:
    rng = np.random.default_rng(2)
    features, labels = rng.normal(size=(50, 10)).astype(np.float32), rng.integers(0, 4, 50)
    found = influential_features(features, labels, 3, 6, 4)
    for factor in (2.0**-100, 2.0**60):
        scaled = influential_features(features * np.float32(factor), labels, 3, 6, 4)
        np.testing.assert_array_equal(scaled.indices, found.indices)
    order = rng.permutation(50)
    np.testing.assert_array_equal(influential_features(features[order], labels[order], 3, 6, 4).indices, found.indices)


def test_digits_need_their_own_strokes() -> None:
    images, labels = load_digits(return_X_y=True)
    training = np.arange(len(images)) % 2 == 0
    model = LogisticRegression(max_iter=2000).fit(images[training] / 16, labels[training])
    held = images[~training] / 16

    def accuracy(indices: Integers) -> float:
        masked = np.zeros_like(model.coef_)
        np.put_along_axis(masked, indices, np.take_along_axis(model.coef_, indices, axis=1), axis=1)
        return float(((held @ masked.T + model.intercept_).argmax(axis=1) == labels[~training]).mean())

    found = influential_features(images[training], labels[training], 20, 20, 10)
    indices, counts, ties = by_loops(images[training], labels[training], 20, 20, 10)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_array_equal(found.counts, counts)
    np.testing.assert_array_equal(found.tie_at_cut, ties)
    rng = np.random.default_rng(0)
    draws = [accuracy(np.argsort(rng.random((10, 64)), axis=1)[:, :20]) for _ in range(10)]
    assert accuracy(np.tile(np.arange(64), (10, 1))) > 0.93
    assert accuracy(found.indices) > max(draws)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k1": 0}, "k1: expected at least 1, found 0"),
        ({"k1": 4}, r"k1: expected 1\.\.3, found 4"),
        ({"k1": 1.5}, "k1: expected a count, or a share"),
        ({"k1": "5"}, "k1: expected an integer, found '5'"),
        ({"k2": 0}, r"k2: expected 1\.\.3, found 0"),
        ({"k2": 4}, r"k2: expected 1\.\.3, found 4"),
        ({"k2": 1.0}, r"k2: expected an integer, found 1\.0"),
        ({"n_classes": 1}, r"labels: expected 0\.\.0, found 1 at row 1"),
        ({"n_classes": 0}, "n_classes: expected at least 1, found 0"),
        ({"labels": np.zeros(3, dtype=np.int64)}, r"labels: expected shape \(2,\), one per image, found \(3,\)"),
        ({"features": np.zeros((2, 0))}, r"features: expected shape \(m, d\), found \(2, 0\)"),
        ({"features": np.array([[0, 1, 2], [0, np.nan, 0]])}, "found nan at row 1, column 1"),
        ({"rank_by": "contribution"}, "weight: expected the head's"),
        ({"rank_by": "norm"}, "rank_by: expected one of abs, value, contribution, found 'norm'"),
    ],
)
def test_bad_arguments_are_refused(changes: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"features": np.ones((2, 3)), "labels": np.array([0, 1]), "k1": 1, "k2": 1, "n_classes": 2}
    with pytest.raises((ValueError, TypeError), match=message):
        influential_features(**given | changes)


def test_sets_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"counts, sums: expected one shape \(C, d\), found \(2, 3\) and \(3, 2\)"):
        pick_sets(np.zeros((2, 3), dtype=np.int64), np.zeros((3, 2)), 1)
