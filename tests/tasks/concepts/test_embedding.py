"""Embeddings and distances: limits by hand, loops over single numbers, gradients."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tasks.concepts import anchor_distance, neuron_embeddings
from tasks.concepts.distances import anchor_distances, mean_pairwise_distance, neuron_distances
from tasks.concepts.embedding import temperature_ablation

Doubles = NDArray[np.float64]


def unit_rows(n: int, e: int, seed: int = 0) -> Doubles:
    rows = np.random.default_rng(seed).normal(size=(n, e))
    result: Doubles = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return result


def slow_distance(embeddings: Doubles, anchors: Doubles) -> float:
    return float(np.mean([min(math.dist(u, a) for u in embeddings.tolist()) for a in anchors.tolist()]))


def test_an_embedding_is_the_weighted_mean_of_the_words() -> None:
    text, similarity = unit_rows(5, 3), np.random.default_rng(1).normal(size=(4, 5))
    result = neuron_embeddings(similarity, text, 0.7)
    assert isinstance(result, np.ndarray)
    for neuron in range(4):
        weights = [math.exp(value / 0.7) for value in similarity[neuron].tolist()]
        for axis in range(3):
            expected = sum(w * f for w, f in zip(weights, text[:, axis].tolist(), strict=True)) / sum(weights)
            np.testing.assert_allclose(result[neuron, axis], expected, rtol=1e-12)


def test_two_words_by_hand() -> None:
    result = neuron_embeddings(np.array([[math.log(3), 0.0]]), np.eye(2), 1.0)
    np.testing.assert_allclose(result, [[0.75, 0.25]])
    np.testing.assert_allclose(neuron_embeddings(np.array([[math.log(3), 0.0]]), np.eye(2), 0.5), [[0.9, 0.1]])


@pytest.mark.parametrize("scale", [1.0, 1e-3, -300.0])
def test_limits_of_the_temperature(scale: float) -> None:
    text = unit_rows(4, 6)
    similarity = abs(scale) * np.array([[1.0, 3.0, 2.0, 0.0], [5.0, 5.0, 1.0, 0.0]]) + min(scale, 0) * 10
    cold = neuron_embeddings(similarity, text, 1e-300)
    np.testing.assert_allclose(cold, [text[1], (text[0] + text[1]) / 2])
    hot = neuron_embeddings(similarity, text, 1e12)
    np.testing.assert_allclose(hot, np.tile(text.mean(axis=0), (2, 1)), atol=1e-8)


def test_kinds_and_widths_are_those_that_came_in() -> None:
    similarity, text = np.random.default_rng(1).normal(size=(4, 5)), unit_rows(5, 3)
    wide = neuron_embeddings(similarity, text, 0.01)
    narrow = neuron_embeddings(torch.from_numpy(similarity).float(), torch.from_numpy(text).float(), 0.01)
    assert isinstance(narrow, torch.Tensor)
    assert narrow.dtype == torch.float32
    np.testing.assert_allclose(narrow.numpy(), wide, rtol=1e-3, atol=1e-5)
    tensor_distance = anchor_distance(narrow, torch.from_numpy(text).float())
    assert isinstance(tensor_distance, torch.Tensor)
    assert (tensor_distance.shape, tensor_distance.dtype) == ((), torch.float32)
    distance = anchor_distance(wide, text)
    assert isinstance(distance, float)
    np.testing.assert_allclose(tensor_distance.item(), distance, rtol=1e-3)


def test_anchor_distances_equal_a_loop() -> None:
    embeddings, anchors = 0.5 * unit_rows(30, 4), unit_rows(70, 4, seed=1)
    embeddings[7], embeddings[3] = anchors[5], anchors[5]
    np.testing.assert_allclose(anchor_distance(embeddings, anchors), slow_distance(embeddings, anchors), rtol=1e-12)
    nearest = anchor_distances(embeddings, anchors)
    for anchor, (distance, neuron) in enumerate(zip(*nearest, strict=True)):
        distances = [math.dist(u, anchors[anchor].tolist()) for u in embeddings.tolist()]
        np.testing.assert_allclose(distance, min(distances), atol=1e-15)
        assert neuron == distances.index(min(distances))  # the lower of two equal neurons
    assert (nearest.distance[5], nearest.neuron[5]) == (0.0, 3)
    np.testing.assert_allclose(neuron_distances(embeddings, anchors).min(axis=0), nearest.distance, atol=1e-15)


def test_distances_by_hand() -> None:
    assert anchor_distance(np.array([[0.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])) == 0.5
    assert mean_pairwise_distance(np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]])) == pytest.approx(10 / 3)
    assert math.isnan(mean_pairwise_distance(np.ones((1, 3))))


def test_the_mean_pairwise_distance_is_exact_over_blocks() -> None:
    points = np.random.default_rng(0).normal(size=(1500, 2))
    points[1] = points[0] + 1e-9
    total = sum(float(np.sqrt(((points - point) ** 2).sum(axis=1)).sum()) for point in points)
    assert mean_pairwise_distance(points) == pytest.approx(total / (1500 * 1499), rel=1e-12)
    assert mean_pairwise_distance(torch.from_numpy(points[:2])) == pytest.approx(1e-9 * math.sqrt(2), rel=1e-6)


def test_the_gradient_is_finite_where_a_neuron_is_on_an_anchor() -> None:
    anchors = torch.eye(3, dtype=torch.float64)
    embeddings = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.6, 0.0]], dtype=torch.float64, requires_grad=True)
    distance = anchor_distance(embeddings, anchors)
    (gradient,) = torch.autograd.grad(distance, embeddings)
    # anchors 1 and 2 are nearest to neuron 1, by steps (0, -0.4, 0) and (0, 0.6, -1): a third of each direction
    length = math.sqrt(1.36)
    np.testing.assert_allclose(distance.item(), (0 + 0.4 + length) / 3)
    np.testing.assert_allclose(
        gradient, np.array([[0, 0, 0], [0, (0.6 / length - 1) / 3, -1 / length / 3]]), atol=1e-15
    )


def test_gradients_flow_from_the_distance_to_the_similarity() -> None:
    text = torch.from_numpy(unit_rows(6, 4))
    similarity = torch.from_numpy(np.random.default_rng(2).normal(size=(3, 6))).requires_grad_()

    def distance(values: torch.Tensor) -> torch.Tensor:
        embeddings = neuron_embeddings(values, text, 0.5)
        assert isinstance(embeddings, torch.Tensor)
        return anchor_distance(embeddings, text)

    (gradient,) = torch.autograd.grad(distance(similarity), similarity)
    step = torch.zeros_like(similarity)
    step[1, 2] = 1e-6
    slope = (distance((similarity + step).detach()) - distance((similarity - step).detach())) / 2e-6
    np.testing.assert_allclose(gradient[1, 2].item(), slope.item(), rtol=1e-6)


def test_the_temperature_ablation_is_the_distance_at_each_temperature() -> None:
    text, similarity = unit_rows(8, 4), np.random.default_rng(3).normal(size=(5, 8))
    result = temperature_ablation(similarity, text, text, [1e-6, 0.1, 1e9])
    np.testing.assert_allclose(result[1], slow_distance(np.asarray(neuron_embeddings(similarity, text, 0.1)), text))
    best = text[similarity.argmax(axis=1)]
    np.testing.assert_allclose(result[0], slow_distance(best, text))
    np.testing.assert_allclose(result[2], slow_distance(text.mean(axis=0)[None], text), rtol=1e-6)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"temperature: expected a number above 0, found 0"):
        neuron_embeddings(np.ones((2, 3)), np.ones((3, 4)), 0)
    with pytest.raises(ValueError, match=r"text: expected shape \(3, any\), none of them 0, found \(2, 4\)"):
        neuron_embeddings(np.ones((2, 3)), np.ones((2, 4)), 1.0)
    with pytest.raises(ValueError, match="similarity: expected finite values"):
        neuron_embeddings(np.full((2, 3), np.nan), np.ones((3, 4)), 1.0)
    with pytest.raises(ValueError, match=r"anchors: expected shape \(any, 4\), none of them 0, found \(2, 3\)"):
        anchor_distance(np.ones((2, 4)), np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"embeddings: expected shape \(any, any\), none of them 0, found \(0, 3\)"):
        anchor_distance(np.ones((0, 3)), np.ones((2, 3)))
