"""Similarities against loops over single numbers, limits by hand, dead neurons, gradients and bad input."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from tasks.detectors import SIMILARITIES, check_similarity
from tasks.detectors.activity import dead, few_positive
from tasks.detectors.marginal import subtract
from tests.tasks.detectors.slow_similarities import CONSTANT, DEAD, DUPLICATES, Probe, slow_similarity

CASES: dict[str, tuple[str, dict[str, Any]]] = {  # Any: parameters
    "cos": ("cos", {}),
    "cos_cubed": ("cos_cubed", {}),
    "cos_cubed scale-free": ("cos_cubed", {"min_norm": "scale-free"}),
    "wpmi": ("wpmi", {"top_k": 6}),
    "soft_wpmi": ("soft_wpmi", {"top_k": 11}),
    "rank_reorder": ("rank_reorder", {"top_fraction": 0.3}),
}
NAMES = sorted(SIMILARITIES)
SMALL: dict[str, dict[str, Any]] = {name: params for name, params in CASES.values() if "min_norm" not in params}


@pytest.mark.parametrize("case", CASES)
def test_each_similarity_equals_a_loop_over_single_numbers(case: str, probe: Probe) -> None:
    name, params = CASES[case]
    result = SIMILARITIES[name](torch.from_numpy(probe.activations), torch.from_numpy(probe.scores), **params)
    assert isinstance(result, torch.Tensor)
    assert result.dtype == torch.float64
    expected = slow_similarity(case, probe.activations, probe.scores)
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_dead_neurons_are_zeros_and_do_not_change_the_others(case: str, probe: Probe) -> None:
    name, params = CASES[case]
    result = SIMILARITIES[name](probe.activations, probe.scores, **params)
    others = [k for k in range(7) if k not in DEAD]
    alone = SIMILARITIES[name](probe.activations[:, others], probe.scores, **params)
    np.testing.assert_array_equal(result[list(DEAD)], 0)
    np.testing.assert_allclose(result[others], alone, rtol=1e-12)
    np.testing.assert_array_equal(SIMILARITIES[name](probe.activations[:, list(DEAD)], probe.scores, **params), 0)
    np.testing.assert_array_equal(dead(probe.activations), [k in DEAD for k in range(7)])


@pytest.mark.parametrize("case", CASES)
def test_duplicate_and_constant_concepts(case: str, probe: Probe) -> None:
    name, params = CASES[case]
    result = SIMILARITIES[name](probe.activations, probe.scores, **params)
    np.testing.assert_array_equal(result[:, DUPLICATES[0]], result[:, DUPLICATES[1]])
    assert np.isfinite(result).all()
    if name == "cos_cubed":
        np.testing.assert_array_equal(result[:, CONSTANT], 0)


@pytest.mark.parametrize("name", NAMES)
def test_inputs_of_other_widths_and_kinds(name: str, probe: Probe) -> None:
    params = SMALL[name]
    narrow = (probe.activations.astype(np.float32), probe.scores.astype(np.float32))
    before = [array.copy() for array in narrow]
    result = SIMILARITIES[name](*narrow, **params)
    assert isinstance(result, np.ndarray)
    assert result.dtype == np.float32
    wide = SIMILARITIES[name](narrow[0].astype(np.float64), narrow[1].astype(np.float64), **params)
    np.testing.assert_allclose(result, wide, rtol=1e-5, atol=1e-6)  # sums are in float64
    for array, copy in zip(narrow, before, strict=True):
        np.testing.assert_array_equal(array, copy)
    integers = np.arange(80).reshape(40, 2) % 7
    np.testing.assert_array_equal(
        SIMILARITIES[name](integers, narrow[1], **params),
        SIMILARITIES[name](integers.astype(np.float64), narrow[1], **params),
    )


def test_cosines_by_hand() -> None:
    activations = np.array([[3.0], [4.0], [0.0]])
    scores = np.array([[3.0, 0.0, 0.0], [4.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    np.testing.assert_allclose(SIMILARITIES["cos"](activations, scores), [[1.0, 0.0, 0.8]], atol=1e-15)
    # centred: (-1, 0, 1) and (1, 0, -1) have cubes that are equal and opposite
    column = np.array([[1.0], [2.0], [3.0]])
    np.testing.assert_allclose(SIMILARITIES["cos_cubed"](column, np.hstack([column, -column])), [[1.0, -1.0]])


def test_the_smallest_norm_shrinks_small_values_and_scale_free_does_not() -> None:
    column = np.array([[-0.01], [0.0], [0.01]])  # cubes 1e-6, norm 1.414e-6: divided by 1e-3 on both sides
    np.testing.assert_allclose(SIMILARITIES["cos_cubed"](column, column), [[2e-12 / 1e-6]])
    np.testing.assert_allclose(SIMILARITIES["cos_cubed"](column, column, min_norm="scale-free"), [[1.0]])
    np.testing.assert_allclose(SIMILARITIES["cos_cubed"](column * 1e-60, column, min_norm="scale-free"), [[1.0]])
    np.testing.assert_allclose(SIMILARITIES["cos_cubed"](column * 1e60, column, min_norm="scale-free"), [[1.0]])


def test_mutual_information_by_hand() -> None:
    # two images, two concepts, a = log 3: Q is (3/4, 1/4) and (1/4, 3/4); each neuron's one top image decides
    activations, scores = np.array([[1.0, 0.0], [0.0, 1.0]]), np.eye(2)
    joint = np.log(np.array([[0.75, 0.25], [0.25, 0.75]]) + 1e-7)
    params = {"top_k": 1, "a": math.log(3)}
    np.testing.assert_allclose(SIMILARITIES["wpmi"](activations, scores, lam=0, **params), joint)
    marginal = np.log((0.75 + 0.25 + 2e-7) / 2)
    np.testing.assert_allclose(SIMILARITIES["wpmi"](activations, scores, lam=0.5, **params), joint - 0.5 * marginal)
    certain = SIMILARITIES["soft_wpmi"](activations, scores, p_start=1, p_end=1, lam=0, **params)
    np.testing.assert_allclose(certain, joint)
    half = SIMILARITIES["soft_wpmi"](activations, scores, p_start=0.5, p_end=0.1, lam=0, **params)
    np.testing.assert_allclose(half, np.log(1 + 0.5 * (np.array([[0.75, 0.25], [0.25, 0.75]]) - 1) + 1e-7))


def test_a_concept_in_the_neurons_order_has_no_error() -> None:
    rng = np.random.default_rng(0)
    activations = rng.normal(size=(200, 3))
    scores = np.hstack([0.3 + 0.01 * activations, rng.normal(size=(200, 5))])
    result = SIMILARITIES["rank_reorder"](activations, scores, top_fraction=0.1)
    np.testing.assert_allclose(np.diag(np.asarray(result)), 0, atol=1e-15)
    others = np.asarray(result)[~np.eye(3, 8, dtype=bool)]
    assert (others < 0).all()
    assert np.isfinite(others).all()  # mean cosines of 0 and below have a guarded root


def test_equal_top_activations_name_no_concept() -> None:
    activations = np.r_[np.ones(10), np.zeros(10)][:, None]
    result = SIMILARITIES["rank_reorder"](activations, np.full((20, 2), 0.25), top_fraction=0.5)
    np.testing.assert_allclose(result, [[-2.0, -2.0]])  # as a random order, over the root of 0.25


def test_chunks_of_neurons_share_one_marginal(probe: Probe) -> None:
    for name, lam in (("wpmi", 0.6), ("soft_wpmi", 1.0)):
        whole = SIMILARITIES[name](probe.activations, probe.scores, **SMALL[name])
        parts = [
            SIMILARITIES[name](probe.activations[:, part], probe.scores, lam=0, **SMALL[name])
            for part in (slice(0, 3), slice(3, 4), slice(4, 7))
        ]
        joint = np.concatenate([np.asarray(part) for part in parts])
        alive = ~np.asarray(dead(probe.activations))
        np.testing.assert_allclose(subtract(joint, alive, lam), whole, rtol=1e-12)


@pytest.mark.parametrize("min_norm", [1e-3, 0.2, "scale-free"])
def test_cos_cubed_is_differentiable_in_activations(min_norm: float | str, probe: Probe) -> None:
    activations = torch.from_numpy(probe.activations).requires_grad_()
    scores = torch.from_numpy(probe.scores)
    result = SIMILARITIES["cos_cubed"](activations, scores, min_norm=min_norm)
    weights = torch.from_numpy(np.random.default_rng(1).normal(size=(7, 9)))
    assert isinstance(result, torch.Tensor)
    (gradient,) = torch.autograd.grad((result * weights).sum(), activations)
    assert torch.isfinite(gradient).all()
    assert (gradient[:, list(DEAD)] == 0).all()

    def value(image: int, neuron: int, step: float) -> float:
        moved = probe.activations.copy()
        moved[image, neuron] += step
        moved_result = np.asarray(SIMILARITIES["cos_cubed"](moved, probe.scores, min_norm=min_norm))
        return float((moved_result * weights.numpy()).sum())

    for image, neuron in ((0, 0), (17, 1), (39, 6)):
        slope = (value(image, neuron, 1e-6) - value(image, neuron, -1e-6)) / 2e-6
        np.testing.assert_allclose(gradient[image, neuron].item(), slope, rtol=1e-6, atol=1e-8)


def test_float32_activations_have_float32_gradients(probe: Probe) -> None:
    activations = torch.from_numpy(probe.activations).float().requires_grad_()
    result = SIMILARITIES["cos_cubed"](activations, torch.from_numpy(probe.scores).float())
    assert isinstance(result, torch.Tensor)
    assert result.dtype == torch.float32
    (gradient,) = torch.autograd.grad(result.sum(), activations)
    assert gradient.dtype == torch.float32


def test_few_positive_values() -> None:
    activations = np.array([[0.0, 1, 1, -1], [0, 2, 1, -2], [0, 3, 0, 5]])
    np.testing.assert_array_equal(few_positive(activations, 2), [True, False, True, True])
    np.testing.assert_array_equal(few_positive(activations, 1), [True, False, False, False])


@pytest.mark.parametrize("name", NAMES)
def test_wrong_shapes_and_values_are_named(name: str, probe: Probe) -> None:
    similarity, params = SIMILARITIES[name], SMALL[name]
    activations, scores = probe.activations, probe.scores
    with pytest.raises(ValueError, match=r"scores: expected shape \(40, any\), none of them 0, found \(39, 9\)"):
        similarity(activations, scores[1:], **params)
    with pytest.raises(ValueError, match=r"activations: expected shape \(any, any\), none of them 0, found \(40,\)"):
        similarity(activations[:, 0], scores, **params)
    broken = activations.copy()
    broken[4, 1] = np.nan
    with pytest.raises(ValueError, match="activations: expected finite values, found NaN or inf in 1 of 40 rows"):
        similarity(broken, scores, **params)
    broken = scores.copy()
    broken[39, 0] = np.inf
    with pytest.raises(ValueError, match=r"scores: expected finite values, .* the first is row 39"):
        similarity(activations, broken, **params)
    with pytest.raises(TypeError, match="activations: expected a NumPy array or a torch tensor of real numbers"):
        similarity(activations.tolist(), scores, **params)
    with pytest.raises(TypeError, match=r"scores: expected .* found bool"):
        similarity(activations, scores > 0, **params)


@pytest.mark.parametrize(
    ("name", "params", "expected"),
    [
        ("wpmi", {"top_k": 0}, "top_k: expected an integer of at least 1, found 0"),
        ("wpmi", {"top_k": 2.5}, "top_k: expected an integer of at least 1, found 2.5"),
        ("soft_wpmi", {"a": 0}, "a: expected a number above 0, found 0"),
        ("soft_wpmi", {"p_start": 1.2}, "p_start: expected a number of at least 0 and at most 1, found 1.2"),
        ("soft_wpmi", {"lam": -1}, "lam: expected a number of at least 0, found -1"),
        ("soft_wpmi", {"lam": math.nan}, "lam: expected a number of at least 0, found nan"),
        ("cos_cubed", {"min_norm": "free"}, "min_norm: expected a number or \"scale-free\", found 'free'"),
        ("cos_cubed", {"min_norm": -1.0}, "min_norm: expected a number of at least 0, found -1.0"),
        ("rank_reorder", {"top_fraction": 0}, "top_fraction: expected a number above 0 and at most 1, found 0"),
        ("rank_reorder", {"seed": -1}, "seed: expected an integer of at least 0, found -1"),
        ("rank_reorder", {"p": "3"}, "p: expected a number above 0, found '3'"),
        ("cos", {"top_k": 3}, r"top_k: expected a parameter of cos \(no parameters\), found 'top_k'"),
        ("wpmi", {"p_end": 1}, r"p_end: expected a parameter of wpmi \(top_k, a, lam\), found 'p_end'"),
        ("cosine", {}, "similarity: expected one of cos, cos_cubed, wpmi, soft_wpmi, rank_reorder, found 'cosine'"),
    ],
)
def test_a_bad_parameter_is_named_without_data(name: str, params: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=f"^{expected}$"):
        check_similarity(name, **params)
    if name in SIMILARITIES:
        with pytest.raises(ValueError, match=f"^{expected}$"):
            SIMILARITIES[name](np.eye(3), np.eye(3), **params)


def test_more_top_images_than_images(probe: Probe) -> None:
    with pytest.raises(ValueError, match="top_k: expected at most the 40 images, found 100"):
        SIMILARITIES["soft_wpmi"](probe.activations, probe.scores)
    with pytest.raises(ValueError, match="top_k: expected at most the 40 images, found 41"):
        SIMILARITIES["wpmi"](probe.activations, probe.scores, top_k=41)
    with pytest.raises(
        ValueError, match=r"top_fraction: expected a share that gives at least 2 of 40 images, found 0.04"
    ):
        SIMILARITIES["rank_reorder"](probe.activations, probe.scores, top_fraction=0.04)
    for name in NAMES:
        check_similarity(name)
