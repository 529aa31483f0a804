"""Nulls, planted neurons, agreement and the plane: known truths."""

import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.concepts.agreement import agreement
from tasks.concepts.nulls import permuted_activations, shuffled_images
from tasks.concepts.plane import PcaPlane, fit_plane
from tasks.concepts.planted import planted_activations, planted_rates
from tasks.detectors import SIMILARITIES

Doubles = NDArray[np.float64]


def coverages(n: int = 300, n_labels: int = 20) -> Doubles:
    """Sparse coverages, as of objects: present on a tenth of the images."""
    rng = np.random.default_rng(0)
    return rng.random((n, n_labels)) * (rng.random((n, n_labels)) < 0.1)


def test_permuted_activations_keep_the_values_of_each_neuron() -> None:
    activations = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    result = permuted_activations(activations, 3)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(np.sort(result, axis=0), np.sort(activations, axis=0))
    orders = [tuple(np.argsort(np.argsort(activations[:, k]))[np.argsort(result[:, k])]) for k in range(6)]
    assert len(set(orders)) == 6  # each neuron on its own
    parts = [permuted_activations(activations[:, :2], 3), permuted_activations(activations[:, 2:], 3, first=2)]
    np.testing.assert_array_equal(np.hstack(parts), result)
    assert (permuted_activations(activations, 4) != result).any()


@pytest.mark.parametrize("n", [2, 3, 100])
def test_shuffled_label_maps_leave_none_in_place(n: int) -> None:
    order = shuffled_images(n, 5)
    np.testing.assert_array_equal(np.sort(order), np.arange(n))
    assert (order != np.arange(n)).all()


def test_planted_neurons_are_coverage_and_noise_of_the_stated_size() -> None:
    coverage = coverages(4000)
    coverage[:, 3] = 0.0
    np.testing.assert_array_equal(planted_activations(coverage, 0.0, 0), coverage.astype(np.float32))
    noisy = planted_activations(coverage, 0.5, 0)
    ratio = (noisy - coverage).std(axis=0) / np.where(coverage.std(axis=0) > 0, coverage.std(axis=0), 1)
    np.testing.assert_allclose(np.delete(ratio, 3), 0.5, rtol=0.1)
    np.testing.assert_array_equal(noisy[:, 3], 0)  # a label without images gives a dead neuron


@pytest.mark.parametrize("name", ["cos", "cos_cubed", "wpmi", "soft_wpmi", "rank_reorder"])
def test_detectors_find_planted_neurons(name: str) -> None:
    coverage = coverages()
    scores = 0.2 + 0.1 * coverage + 0.005 * np.random.default_rng(1).normal(size=coverage.shape)
    cases: dict[str, dict[str, float]] = {"soft_wpmi": {"top_k": 15}, "wpmi": {"top_k": 15, "a": 10.0}}
    params = cases.get(name, {})
    similarity = np.asarray(SIMILARITIES[name](planted_activations(coverage, 0.1, 0), scores, **params))
    rates = planted_rates(similarity, np.arange(20))
    assert rates.n == 20
    assert rates.top5 >= rates.top1 >= 0.9
    permuted = permuted_activations(planted_activations(coverage, 0.1, 0), 1)
    null = planted_rates(np.asarray(SIMILARITIES[name](permuted, scores, **params)), np.arange(20))
    assert null.top1 <= 0.3


def test_planted_rates_by_hand() -> None:
    similarity = np.array([[0.9, 0.1, 0.2, 0.3, 0.4, 0.5], [5.0, 4, 3, 2, 1, 0], [1.0] * 6, [0.0] * 6])
    assert planted_rates(similarity, np.array([0, 5, 4, -1])) == (1 / 3, 2 / 3, 3)
    assert planted_rates(similarity, np.array([1, 0, 5, -1])) == (1 / 3, 1 / 3, 3)
    assert math.isnan(planted_rates(similarity, np.full(4, -1)).top1)
    with pytest.raises(ValueError, match=r"truth: expected \(4,\) words below 6"):
        planted_rates(similarity, np.array([6, 0, 0, 0]))


def test_agreement_and_its_exact_null() -> None:
    words = ["cat", "dog", "sea"]
    text = dict(zip(words, np.eye(3), strict=True)) | {"cat": np.array([0.6, 0.8, 0.0])}
    first, second = ["cat", "dog", "dog", "sea"], ["cat", "cat", "dog", "cat"]
    rows = [np.stack([text[word] for word in side]) for side in (first, second)]
    result = agreement(first, second, *rows)
    assert (result.same, result.n) == (0.5, 4)
    assert result.cosine == pytest.approx((1 + 0.8 + 1 + 0) / 4)
    pairs = [(a, b) for a in first for b in second]
    assert result.null_same == pytest.approx(np.mean([a == b for a, b in pairs]))
    assert result.null_cosine == pytest.approx(np.mean([text[a] @ text[b] for a, b in pairs]))
    assert math.isnan(agreement([], [], np.zeros((0, 3)), np.zeros((0, 3))).same)
    with pytest.raises(ValueError, match="words: expected the same neurons, found 1 and 2"):
        agreement(["a"], ["a", "b"], np.eye(1), np.eye(1))


def test_the_plane_shows_the_two_largest_spreads() -> None:
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    flat = rng.normal(size=(40, 5)) * [10, 3, 0.01, 0.01, 0.01]
    text = (flat - flat.mean(axis=0)) @ rotation + 7
    plane = fit_plane(text)
    points = plane.transform(text)
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    true = np.linalg.norm(text[:, None] - text, axis=2)
    np.testing.assert_allclose(distances, true, atol=0.1)
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(plane.transform((text[:1] + text[1:2]) / 2), (points[:1] + points[1:2]) / 2)
    assert isinstance(plane, PcaPlane)
    assert (plane.axes[np.abs(plane.axes).argmax(axis=0), [0, 1]] > 0).all()
    np.testing.assert_allclose(np.cov(points.T)[0, 1], 0, atol=1e-10)


def test_words_without_spread_have_one_place() -> None:
    np.testing.assert_array_equal(fit_plane(np.ones((3, 4))).transform(np.ones((2, 4))), np.zeros((2, 2)))
    line = fit_plane(np.array([[0.0, 0.0], [2.0, 0.0]])).transform(np.array([[0.0, 0.0], [2.0, 5.0]]))
    np.testing.assert_allclose(line, [[-1, 0], [1, 0]])


def test_umap_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    text = np.random.default_rng(0).normal(size=(6, 3))
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ValueError, match="plane: expected the package umap-learn for umap, found none; install"):
        fit_plane(text, "umap")

    class Reducer:
        def __init__(self, n_neighbors: int, random_state: int, n_jobs: int) -> None:
            assert (n_neighbors, random_state, n_jobs) == (5, 9, 1)

        def fit(self, rows: Doubles) -> "Reducer":
            return self

        def transform(self, rows: Doubles) -> Doubles:
            return rows[:, :2]

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Reducer))
    np.testing.assert_array_equal(fit_plane(text, "umap", seed=9).transform(text), text[:, :2])
    with pytest.raises(ValueError, match="plane: expected one of pca, umap, found 'tsne'"):
        fit_plane(text, "tsne")
