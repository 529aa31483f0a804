"""Topics: the forward pass position by position, the terms of the loss, and the checks."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tasks.interpreters import topics as topics_module
from tasks.interpreters.topics import (
    completeness,
    head_gradient_missing,
    near_duplicates,
    rebuild,
    topic_amounts,
    topic_cosines,
    topic_forward,
    topic_importance,
    topic_terms,
)


@pytest.fixture
def given() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return maps with a zero position, topics of several lengths, and both layers, in float64."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand((3, 2, 4, 6), generator=generator, dtype=torch.float64)
    maps[1, 0, 2] = 0
    topics = torch.rand((6, 5), generator=generator, dtype=torch.float64) - 0.3
    topics[:, 3] *= 100
    r1 = torch.rand((5, 7), generator=generator, dtype=torch.float64) - 0.5
    return maps, topics, r1, torch.rand((7, 6), generator=generator, dtype=torch.float64) - 0.5


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.6, 2.0])
def test_forward_position_by_position(given: tuple[Tensor, ...], threshold: float) -> None:
    maps, topics, r1, r2 = (x.numpy() for x in given)
    expected = np.zeros_like(maps)
    unit = topics / np.linalg.norm(topics, axis=0)
    for at in np.ndindex(*maps.shape[:3]):
        length = np.linalg.norm(maps[at])
        if length == 0:
            continue
        amounts = [max(0.0, maps[at] @ t) if maps[at] @ t / length > threshold else 0.0 for t in unit.T]
        shares = np.array(amounts) / (sum(amounts) + 1e-3)
        expected[at] = np.maximum(shares @ r1, 0) @ r2
    tensors = dict(zip(("maps", "topics", "r1", "r2"), given, strict=True))
    found = topic_forward(**tensors, threshold=threshold).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-14)
    assert (found[1, 0, 2] == 0).all()
    if threshold == 2.0:
        assert (found == 0).all()


def test_the_gate_is_strict_by_hand() -> None:
    maps = torch.tensor([[[[3.0, 4.0], [0.0, 2.0]]]])
    topics, r1, r2 = torch.eye(2), torch.eye(2), torch.eye(2)
    # cosines of (3, 4): 0.6 and 0.8; at 0.6 only the second is active: N = (0, 4 / 4.001)
    found = topic_forward(maps, topics, r1, r2, 0.6)
    np.testing.assert_allclose(found[0, 0], [[0, 4 / 4.001], [0, 2 / 2.001]], rtol=1e-6)
    both = topic_forward(maps, topics, r1, r2, 0.59)
    np.testing.assert_allclose(both[0, 0, 0], [3 / 7.001, 4 / 7.001], rtol=1e-6)


def test_scales_of_topics_do_not_matter(given: tuple[Tensor, ...]) -> None:
    maps, topics, r1, r2 = given
    scaled = topics * torch.tensor([0.1, 7.0, 1.0, 1e-6, 1e4], dtype=torch.float64)
    torch.testing.assert_close(topic_forward(maps, scaled, r1, r2, 0.2), topic_forward(maps, topics, r1, r2, 0.2))


def test_order_of_topics_and_images_does_not_matter(given: tuple[Tensor, ...]) -> None:
    maps, topics, r1, r2 = given
    whole = topic_forward(maps, topics, r1, r2, 0.2)
    turn = [3, 0, 4, 2, 1]
    torch.testing.assert_close(topic_forward(maps, topics[:, turn], r1[turn], r2, 0.2), whole)
    torch.testing.assert_close(topic_forward(maps[[2, 0]], topics, r1, r2, 0.2), whole[[2, 0]])


def test_gradients_are_finite_and_those_of_differences(given: tuple[Tensor, ...]) -> None:
    maps, topics, r1, r2 = (x.clone().requires_grad_(True) for x in given)
    assert torch.autograd.gradcheck(
        lambda t, a, b: topic_forward(maps.detach(), t, a, b, 0.2), (topics, r1, r2), atol=1e-6
    )
    topic_forward(maps, topics, r1, r2, 0.2).sum().backward()  # type: ignore[no-untyped-call]  # torch's own
    near, likeness = topic_terms(maps, topics, nearest=3, similarity="squared")
    (near + likeness).backward()  # type: ignore[no-untyped-call]  # torch's own
    for tensor in (maps, topics, r1, r2):
        assert tensor.grad is not None
        assert bool(torch.isfinite(tensor.grad).all())  # the zero position too


def test_a_zero_topic_is_never_active() -> None:
    maps = torch.ones(1, 1, 1, 2)
    topics = torch.tensor([[0.0, 1.0], [0.0, 0.0]], requires_grad=True)
    amounts = topic_amounts(maps, topics, 0.0)
    np.testing.assert_allclose(amounts.detach()[0, 0, 0], [0, 1], rtol=1e-6)
    amounts.sum().backward()  # type: ignore[no-untyped-call]  # torch's own
    assert topics.grad is not None
    assert bool(torch.isfinite(topics.grad).all())


def test_topics_left_out_give_their_share_to_the_others() -> None:
    amounts = topic_amounts(torch.tensor([[[[3.0, 4.0]]]]), torch.eye(2), 0.2)
    np.testing.assert_allclose(amounts[0, 0, 0], [3, 4], rtol=1e-6)
    kept = torch.tensor([True, False])
    found = rebuild(amounts, torch.eye(2), torch.eye(2), kept)
    np.testing.assert_allclose(found[0, 0, 0], [3 / 3.001, 0], rtol=1e-6)


def test_terms_of_the_loss_by_hand() -> None:
    maps = torch.tensor([[[[1.0, 0.0], [3.0, 4.0], [0.0, 0.0]]]])
    topics = torch.tensor([[2.0, 1.0], [0.0, 1.0]])  # units (1, 0) and (1, 1) / sqrt 2
    half = 0.5**0.5
    np.testing.assert_allclose(topic_cosines(maps, topics)[0, 0], [[1, half], [0.6, 7 * half / 5], [0, 0]], rtol=1e-6)
    near, likeness = topic_terms(maps, topics, nearest=2, similarity="squared")
    np.testing.assert_allclose(near, (1 + 0.6 + half + 1.4 * half) / 4, rtol=1e-6)
    np.testing.assert_allclose(likeness, 2 * 0.5 / 4, rtol=1e-5)
    near, likeness = topic_terms(maps, topics, nearest=99, similarity="signed")
    np.testing.assert_allclose(near, (1 + 0.6 + half + 1.4 * half) / 6, rtol=1e-6)  # all three positions
    np.testing.assert_allclose(likeness, 2 * half / 4, rtol=1e-5)


def test_completeness_by_hand() -> None:
    assert completeness(0.7, 0.1, 0.9) == pytest.approx(0.75)
    assert completeness(0.05, 0.1, 0.9) == pytest.approx(-0.0625)
    assert np.isnan(completeness(0.1, 0.1, 0.1))


def test_near_duplicates_by_hand() -> None:
    topics = np.array([[1.0, 5.0, 0.0, 0.0], [0.0, 0.5, 1.0, 0.0]])
    ((first, second, cosine),) = near_duplicates(topics)
    assert (first, second) == (0, 1)
    assert cosine == pytest.approx(5 / 25.25**0.5)
    assert near_duplicates(topics[:, [2, 3]]) == []
    assert len(near_duplicates(np.ones((3, 4)))) == 6


def test_heads_that_cannot_be_differentiated_are_seen() -> None:
    maps = torch.ones(2, 3, 1, 1)
    assert not head_gradient_missing(lambda x: x.mean(dim=(2, 3)), maps)
    assert head_gradient_missing(lambda x: x.detach().mean(dim=(2, 3)), maps)
    assert head_gradient_missing(lambda x: x.argmax(dim=1), maps)
    assert head_gradient_missing(lambda x: torch.zeros(len(x), 2, requires_grad=True) + 0 * len(x), maps)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"maps": np.ones((1, 1, 1, 2))}, TypeError, "maps: expected a torch tensor, found ndarray"),
        (
            {"maps": torch.ones(1, 1, 1, 2, dtype=torch.int64)},
            TypeError,
            "maps: expected real numbers, found torch.int64",
        ),
        ({"maps": torch.ones(1, 1, 2)}, ValueError, r"maps: expected \(n, h, w, d\), found shape \(1, 1, 2\)"),
        ({"maps": torch.full((1, 1, 1, 2), torch.nan)}, ValueError, "maps: expected finite values"),
        (
            {"topics": torch.ones(3, 2)},
            ValueError,
            r"topics: expected \(2, m\) for maps of 2 channels, found .*\(3, 2\)",
        ),
        ({"r1": torch.ones(3, 2)}, ValueError, r"r1: expected \(2, H\), found shape \(3, 2\)"),
        ({"r2": torch.ones(3, 2)}, ValueError, r"r2: expected \(2, 2\), found shape \(3, 2\)"),
    ],
)
def test_wrong_inputs_are_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    given: dict[str, Any] = {"maps": torch.ones(1, 1, 1, 2), **dict.fromkeys(("topics", "r1", "r2"), torch.eye(2))}
    with pytest.raises(error, match=message):
        topic_forward(**(given | change), threshold=0.2)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"topics": 0}, "topics: expected an integer of at least 1, found 0"),
        ({"epochs": True}, "epochs: expected an integer of at least 1, found True"),
        ({"frozen_epochs": -1}, "frozen_epochs: expected an integer of at least 0, found -1"),
        ({"threshold": 1.0}, "threshold: expected less than 1, the largest cosine, found 1.0"),
        ({"threshold": "0"}, "threshold: expected a finite number of at least 0, found '0'"),
        ({"concept": float("inf")}, "concept: expected a finite number of at least 0, found inf"),
        ({"lr": 0}, "lr: expected a rate above 0, found 0"),
        ({"similarity": "cosine"}, "similarity: expected squared or signed, found 'cosine'"),
    ],
)
def test_check_names_the_parameter(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        topics_module.check(**parameters)


@pytest.mark.parametrize(("dtype", "scale"), [(torch.float16, 300.0), (torch.float32, 1e20), (torch.float32, 1e-25)])
def test_positions_of_any_length_keep_their_topics(given: tuple[Tensor, ...], dtype: torch.dtype, scale: float) -> None:
    maps, topics, r1, r2 = given
    wide = (maps * scale).to(dtype)
    found = topic_forward(wide, topics, r1, r2, 0.2)
    expected = topic_forward(wide.double(), topics, r1, r2, 0.2)
    assert found.dtype == dtype
    assert bool((expected != 0).any())
    torch.testing.assert_close(found.double(), expected, rtol=1e-3 if dtype == torch.float16 else 1e-6, atol=1e-3)


@pytest.mark.parametrize("name", ["maps", "topics"])
def test_squares_beyond_float64_are_refused(given: tuple[Tensor, ...], name: str) -> None:
    inputs = dict(zip(("maps", "topics", "r1", "r2"), given, strict=True))
    inputs[name] = inputs[name].double() * 1e300  # their lengths would be infinite, and all cosines 0
    with pytest.raises(ValueError, match=rf"^{name}: expected values up to 1e\+150, with squares in float64"):
        topic_forward(**inputs, threshold=0.2)


@pytest.mark.parametrize("threshold", [None, "0.2", True])
def test_a_threshold_is_a_number(given: tuple[Tensor, ...], threshold: float) -> None:
    maps, topics, r1, r2 = given
    with pytest.raises(TypeError, match=r"^threshold: expected a number, found"):
        topic_forward(maps, topics, r1, r2, threshold)


@pytest.mark.parametrize("threshold", [float("nan"), float("inf")])
def test_a_threshold_is_finite(given: tuple[Tensor, ...], threshold: float) -> None:
    maps, topics, r1, r2 = given
    with pytest.raises(ValueError, match=r"^threshold: expected a finite number, found"):
        topic_forward(maps, topics, r1, r2, threshold)


def test_a_head_that_works_in_place_has_a_gradient() -> None:
    assert not head_gradient_missing(
        lambda maps: maps.view(2, -1).relu_().sum(dim=1, keepdim=True), torch.rand(2, 1, 1, 3)
    )


def test_importance_is_the_derivative_along_each_topics_part(given: tuple[Tensor, ...]) -> None:
    maps, topics, r1, r2 = given
    weight = torch.rand((3, 6), generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def head(rebuilt: Tensor) -> Tensor:
        return rebuilt.sum(dim=(1, 2)).tanh() @ weight.T

    amounts = topic_amounts(maps, topics, 0.2)
    shares = (amounts / (amounts.sum(dim=-1, keepdim=True) + 1e-3)).numpy()
    gains, logit = topic_importance(head, amounts, r1, r2, 1)
    w, first, second, step = weight.numpy()[1], r1.numpy(), r2.numpy(), 1e-6

    def mean_logit(scales: np.ndarray) -> float:
        rebuilt = np.maximum(shares * scales @ first, 0) @ second
        return float((np.tanh(rebuilt.sum(axis=(1, 2))) @ w).mean())

    difference = [(mean_logit(1 + step * e) - mean_logit(1 - step * e)) / (2 * step) for e in np.eye(5)]
    np.testing.assert_allclose(gains.numpy(), difference, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(float(logit), mean_logit(np.ones(5)), rtol=1e-12)


def test_importances_of_a_linear_head_add_up_to_the_logit(given: tuple[Tensor, ...]) -> None:
    maps, topics, r1, r2 = given
    amounts = topic_amounts(maps, topics, 0.2)
    gains, logit = topic_importance(lambda rebuilt: rebuilt.mean(dim=(1, 2)), amounts, r1, r2, 4)
    np.testing.assert_allclose(float(gains.sum()), float(logit), rtol=1e-12)
