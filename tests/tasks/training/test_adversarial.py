"""PGD: against a slow loop in float64, its bounds, a linear model's exact worst case, and what it must not change."""

import copy
import itertools
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.training.adversarial import Loss, OfImages, pgd, robust

X = torch.rand((12, 2, 5, 5), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.arange(12) % 3


def network(*, norm: bool = False) -> nn.Sequential:
    """Return a small smooth network in float64."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layers = [nn.Conv2d(2, 4, 3), *([nn.BatchNorm2d(4)] if norm else []), nn.Tanh(), nn.Flatten(), nn.Linear(36, 3)]
        return nn.Sequential(*layers).double()


def slow_pgd(model: nn.Module, x: Tensor, y: int, loss: Loss, *, epsilon: float, step: float, steps: int) -> Tensor:
    """Attack one image (C, H, W) from itself, value by value in Python."""
    found = x.clone()
    for _ in range(steps):
        leaf = found.clone().requires_grad_()
        logits = model(leaf[None])[0]
        rivals = [c for c in range(len(logits)) if c != y]
        rival = max(rivals, key=lambda c: logits[c].item())
        raised = logits[rival] - logits[y] if loss == "margin" else -torch.log_softmax(logits, 0)[y]
        (gradient,) = torch.autograd.grad(raised, leaf)
        for index in np.ndindex(*x.shape):
            move = float(np.sign(gradient[index].item()))
            value = found[index].item() + step * move
            value = min(max(value, x[index].item() - epsilon), x[index].item() + epsilon)
            found[index] = min(max(value, 0.0), 1.0)
    return found


@pytest.mark.parametrize("loss", get_args(Loss))
@pytest.mark.parametrize("epsilon", [0.02, 0.3])
def test_pgd_is_a_slow_loop_over_values(epsilon: float, loss: Loss) -> None:
    model = network()
    found = pgd(model, X, Y, epsilon=epsilon, step=epsilon / 3, steps=5, random_start=False, loss=loss)
    for image, label, attacked in zip(X, Y.tolist(), found, strict=True):
        expected = slow_pgd(model, image, label, loss, epsilon=epsilon, step=epsilon / 3, steps=5)
        torch.testing.assert_close(attacked, expected, rtol=0, atol=1e-14)


def test_the_loss_rises_with_the_steps_and_with_the_ball() -> None:
    model = network()

    def loss(**settings: Any) -> Tensor:  # Any: of pgd
        attacked = pgd(model, X, Y, step=0.002, random_start=False, **settings)
        return F.cross_entropy(model(attacked), Y, reduction="none")

    losses = [loss(epsilon=0.1, steps=steps) for steps in (0, 1, 5, 40)]
    assert all(bool((later > earlier).all()) for earlier, later in itertools.pairwise(losses))
    assert bool((loss(epsilon=0.1, steps=100) > loss(epsilon=0.05, steps=100)).all())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("epsilon", [8 / 255, 0.1, 1 / 3, 1e-3, 0.0, 1.0])
@pytest.mark.parametrize("random_start", [False, True])
def test_results_are_inside_the_ball_and_the_cube_exactly(
    dtype: torch.dtype, epsilon: float, random_start: bool
) -> None:
    torch.manual_seed(3)
    tiny = 10.0 ** -torch.arange(0, 24, dtype=torch.float64)
    x = torch.cat(
        [torch.rand(2000, dtype=torch.float64), tiny, torch.zeros(4), torch.ones(4), epsilon * torch.rand(500)]
    )
    x = x.to(dtype)[None]
    model = nn.Linear(x.shape[1], 2).to(dtype)
    settings: dict[str, Any] = {"epsilon": epsilon, "step": epsilon, "steps": 3, "random_start": random_start}
    found = pgd(model, x, torch.tensor([1]), **settings)
    assert found.dtype == dtype
    assert not found.requires_grad
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert float((found.double() - x.double()).abs().max()) <= epsilon
    assert float((found - x).abs().max()) <= epsilon


def test_a_linear_model_is_driven_to_its_exact_worst_case() -> None:
    # Of two classes, the loss of a linear model falls with (w_y - w_other) x: the worst x is at a corner of the box.
    weight = torch.tensor([[1.0, -2.0, 0.5, 0.0], [-1.0, 1.0, 0.5, 3.0]])
    model = nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(weight)
    x, epsilon = torch.tensor([[0.5, 0.05, 0.4, 0.97], [0.02, 0.5, 0.6, 0.5]]), 0.125
    y = torch.tensor([0, 1])
    found = pgd(model, x, y, epsilon=epsilon, step=0.05, steps=20)
    direction = torch.sign(weight[1 - y] - weight[y])
    corners = (x + epsilon * direction).clamp(0, 1)
    moved = direction != 0
    torch.testing.assert_close(found[moved], corners[moved], rtol=0, atol=1e-7)


def test_the_margin_still_has_a_gradient_where_the_cross_entropy_has_none() -> None:
    """The softmax of a network that is sure rounds to exactly 1, and its loss to a constant."""
    model = nn.Linear(2, 3, bias=False)
    with torch.no_grad():
        model.weight.copy_(1e4 * torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]))
    x, y = torch.tensor([[0.75, 0.25]]), torch.tensor([0])
    settings: dict[str, Any] = {"epsilon": 0.25, "step": 0.25, "steps": 1, "random_start": False}
    assert torch.equal(pgd(model, x, y, **settings), x)
    assert pgd(model, x, y, **settings, loss="margin").tolist() == [[0.5, 0.5]]


def test_nothing_else_changes() -> None:
    model = network(norm=True).train()
    model.append(nn.Dropout(0.2))
    weight = model.get_parameter("0.weight")
    weight.grad = torch.ones_like(weight)
    for parameter in model[4].parameters():
        parameter.requires_grad = False
    before = copy.deepcopy(model.state_dict())
    given = X.clone()
    for mode in (True, False):
        model.train(mode)
        found = pgd(model, given, Y, steps=3)
        assert model.training is mode
        assert float((found - given).abs().max()) > 0
    assert torch.equal(given, X)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(weight.grad, torch.ones_like(weight))
    assert all(parameter.grad is None for name, parameter in model.named_parameters() if name != "0.weight")
    assert [p.requires_grad for p in model.parameters()] == [True] * 4 + [False] * 2


def test_the_random_start_is_torchs_draw_and_no_start_draws_nothing() -> None:
    model = network()
    torch.manual_seed(5)
    first = pgd(model, X, Y, steps=0)
    second = pgd(model, X, Y, steps=0)
    torch.manual_seed(5)
    assert torch.equal(pgd(model, X, Y, steps=0), first)
    assert not torch.equal(first, second)
    state = torch.get_rng_state()
    pgd(model, X, Y, random_start=False)
    assert torch.equal(torch.get_rng_state(), state)


def test_it_works_without_gradients_and_in_inference_mode() -> None:
    model = network()
    expected = pgd(model, X, Y, random_start=False)
    with torch.no_grad():
        assert torch.equal(pgd(model, X, Y, random_start=False), expected)
    with torch.inference_mode():
        assert torch.equal(pgd(model, X, Y, random_start=False), expected)


def test_labels_of_inference_mode_are_taken() -> None:
    model = network()
    expected = pgd(model, X, Y, random_start=False)
    with torch.inference_mode():
        assert torch.equal(pgd(model, X, Y.clone(), random_start=False), expected)


def test_a_graph_from_before_the_attack_can_still_be_followed() -> None:
    model = network(norm=True).train()
    alone = copy.deepcopy(model)
    loss = F.cross_entropy(model(X), Y)
    pgd(model, X, Y, steps=2)
    expected = torch.autograd.grad(F.cross_entropy(alone(X), Y), list(alone.parameters()))
    for one, other in zip(torch.autograd.grad(loss, list(model.parameters())), expected, strict=True):
        assert torch.equal(one, other)


def test_robust_images_are_those_with_a_margin_above_the_worst_case() -> None:
    # Away from 0 and 1, an attack lowers the margin of a linear model by epsilon times the 1-norm of w_y - w_other.
    generator = torch.Generator().manual_seed(2)
    model, x = nn.Linear(6, 2).double(), 0.3 + 0.4 * torch.rand((200, 6), generator=generator, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.randn((2, 6), generator=generator))
        model.bias.copy_(-model.weight.sum(1) / 2)
    logits = model(x).detach()
    y = torch.where(torch.arange(200) % 10 == 0, logits.argmin(1), logits.argmax(1))
    margin = logits.gather(1, y[:, None])[:, 0] - logits.gather(1, 1 - y[:, None])[:, 0]
    fall = 0.1 * float((model.weight[0] - model.weight[1]).detach().abs().sum())
    found = robust(model, x, y, epsilon=0.1, step=0.02, steps=15, restarts=2)
    assert torch.equal(found, margin > fall)
    by_margin = robust(model, x, y, epsilon=0.1, step=0.02, steps=15, loss="margin")
    assert torch.equal(by_margin, margin > fall)
    assert 0 < int(found.sum()) < int((margin > 0).sum()) == 180


def test_of_images_undoes_the_preprocessing() -> None:
    mean, std = torch.tensor([0.4, 0.1])[None, :, None, None], torch.tensor([0.2, 0.5])[None, :, None, None]
    model = network().float()
    seen = OfImages(model, mean, std)
    inputs = (X.float() - mean) / std
    torch.testing.assert_close(seen.images(inputs), X.float(), rtol=0, atol=1e-6)
    torch.testing.assert_close(seen(X.float()), model(inputs), rtol=1e-5, atol=1e-5)
    with pytest.raises(
        ValueError, match=r"adversary: expected images in \[0, 1\] before normalisation, found 0 to 255"
    ):
        seen.images((torch.linspace(0, 255, 8).reshape(1, 2, 2, 2) - mean) / std)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"epsilon": -0.1}, r"epsilon: expected a number in \[0, 1\], found -0.1"),
    ({"epsilon": 1.5}, "epsilon: expected"),
    ({"epsilon": float("nan")}, "epsilon: expected"),
    ({"step": -1.0}, "step: expected a number of at least 0, found -1"),
    ({"step": float("inf")}, "step: expected"),
    ({"steps": -1}, "steps: expected at least 0, found -1"),
    ({"x": X + 0.5}, r"x: expected images in \[0, 1\], found"),
    ({"x": X * float("nan")}, r"x: expected images in \[0, 1\], found"),
    ({"y": Y[:5]}, "x, y: expected images .* and n labels, found"),
]


@pytest.mark.parametrize(("settings", "message"), BAD)
def test_bad_input_is_named(settings: dict[str, Any], message: str) -> None:
    given = {"x": X, "y": Y, **settings}
    with pytest.raises(ValueError, match=message):
        pgd(network(), given.pop("x"), given.pop("y"), **given)
    with pytest.raises(TypeError, match=r"x: expected a tensor of floats, found torch.int64"):
        pgd(network(), torch.ones((2, 2), dtype=torch.int64), Y[:2])
