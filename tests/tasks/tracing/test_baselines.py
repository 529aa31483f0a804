"""Baselines of influence scores, worked by hand and by brute force over coalitions."""

from itertools import permutations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from tasks.tracing.evaluation import knn_shapley, nearest_signed, neighbours_disagreement, same_class

QUERIES = np.array([[0.0, 0.0], [3.0, 1.0]])
CLASSES = np.array([1, 0])
EXAMPLES = np.array([[0.0, 1.0], [2.0, 0.0], [3.0, 3.0], [0.5, 0.5], [5.0, 1.0]])
LABELS = np.array([1, 0, 1, 0, 1])


def test_same_class_is_one() -> None:
    np.testing.assert_array_equal(same_class(CLASSES, LABELS), [[1, 0, 1, 0, 1], [0, 1, 0, 1, 0]])


def test_nearest_are_signed_by_class() -> None:
    distance = np.linalg.norm(QUERIES[:, None] - EXAMPLES, axis=2)
    width = np.median(distance.max(axis=1))  # fewer than ten examples: the farthest
    sign = np.where(CLASSES[:, None] == LABELS, 1, -1)
    expected = sign * np.exp(-0.5 * (distance / width) ** 2)
    np.testing.assert_allclose(nearest_signed(QUERIES, CLASSES, EXAMPLES, LABELS), expected, rtol=1e-12)


@pytest.mark.parametrize("k", [1, 2, 3, 7])
def test_knn_shapley_is_the_mean_over_all_orders(k: int) -> None:
    """The value of a set is the share, of k, of its k nearest examples that are right."""
    found = knn_shapley(QUERIES, CLASSES, EXAMPLES, LABELS, k=k)
    for query, label, row in zip(QUERIES, CLASSES, found, strict=True):
        distance = np.linalg.norm(EXAMPLES - query, axis=1)

        def value(members: tuple[int, ...], distance: np.ndarray = distance, label: int = label) -> float:
            nearest = sorted(members, key=lambda i: distance[i])[:k]
            return float(sum(LABELS[i] == label for i in nearest)) / k

        orders = list(permutations(range(5)))
        expected = np.zeros(5)
        for order in orders:
            for i, example in enumerate(order):
                expected[example] += (value(order[: i + 1]) - value(order[:i])) / len(orders)
        np.testing.assert_allclose(row, expected, atol=1e-12)


def test_knn_shapley_adds_up_to_the_classifier() -> None:
    rng = np.random.default_rng(0)
    examples, labels, queries = rng.normal(size=(50, 3)), rng.integers(0, 3, 50), rng.normal(size=(6, 3))
    chances = KNeighborsClassifier(5).fit(examples, labels).predict_proba(queries)
    found = knn_shapley(queries, np.arange(6) % 3, examples, labels, k=5).sum(axis=1)
    np.testing.assert_allclose(found, chances[np.arange(6), np.arange(6) % 3], atol=1e-12)


def test_disagreement_of_neighbours_by_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    examples, labels = rng.normal(size=(30, 4)), rng.integers(0, 2, 30)
    nearest = NearestNeighbors(n_neighbors=6).fit(examples).kneighbors(return_distance=False)
    expected = (labels[nearest] != labels[:, None]).mean(axis=1)
    np.testing.assert_allclose(neighbours_disagreement(examples, labels, k=6), expected)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"^queries, examples: expected \(Q, d\) and \(N, d\), found \(2, 2\) and"):
        knn_shapley(QUERIES, CLASSES, EXAMPLES[:, :1], LABELS)
    with pytest.raises(ValueError, match=r"^k: expected at least 1 neighbour, found 0$"):
        knn_shapley(QUERIES, CLASSES, EXAMPLES, LABELS, k=0)
