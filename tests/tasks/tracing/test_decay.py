"""Weight decay separated from the gradients: against torch's optimisers, run with their two parts kept separate."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tasks.tracing import DecaySeries, contributions, decay_contributions, decay_known, decay_series

STEPS, QUERIES, DECAY = 25, 3, 0.07
RATES = np.linspace(0.2, 0.01, STEPS)  # a schedule


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def train(momentum: float, nesterov: bool, clip: float | None) -> tuple[nn.Linear, list[Tensor], list[Tensor]]:
    """Train with torch's SGD; return the model, the weights of all steps and the gradients that the optimiser got."""
    model = nn.Linear(4, 3, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(drawn(3, 4, seed=0))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=momentum, nesterov=nesterov, weight_decay=DECAY)
    weights, gradients = [model.weight.detach().clone()], []
    for t, rate in enumerate(RATES):
        optimizer.param_groups[0]["lr"] = float(rate)
        optimizer.zero_grad()
        (model(drawn(8, 4, seed=t + 1)) - drawn(8, 3, seed=t + 99)).square().mean().backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        assert model.weight.grad is not None
        gradients.append(model.weight.grad.clone())
        optimizer.step()
        weights.append(model.weight.detach().clone())
    return model, weights, gradients


def without_decay(gradients: list[Tensor], momentum: float, nesterov: bool) -> Tensor:
    """What the same optimiser makes of the gradients alone: it is linear, so the rest of each update is the decay's."""
    moved = nn.Parameter(torch.zeros(3, 4, dtype=torch.float64))
    optimizer = torch.optim.SGD([moved], lr=1.0, momentum=momentum, nesterov=nesterov)
    updates = []
    for rate, gradient in zip(RATES, gradients, strict=True):
        optimizer.param_groups[0]["lr"] = float(rate)
        before = moved.detach().clone()
        moved.grad = gradient.clone()
        optimizer.step()
        updates.append(moved.detach() - before)
    return torch.stack(updates)


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("chunk", [1, 7, STEPS])
def test_sgd(momentum: float, nesterov: bool, clip: float | None, chunk: int) -> None:
    model, weights, gradients = train(momentum, nesterov, clip)
    inputs = drawn(QUERIES, 4, seed=5)
    updates = torch.stack(weights).diff(dim=0)
    gamma = contributions(model, weights[-1], inputs, updates).gamma.T.numpy()
    init = contributions(model, weights[-1], inputs, weights[0][None]).gamma[:, 0].numpy()
    expected = updates - without_decay(gradients, momentum, nesterov)
    series = DecaySeries(init, weight_decay=DECAY, momentum=momentum, nesterov=nesterov)
    found = [series.update(gamma[t : t + chunk], RATES[t : t + chunk]) for t in range(0, STEPS, chunk)]
    oracle = contributions(model, weights[-1], inputs, expected).gamma.T.numpy()
    np.testing.assert_allclose(np.concatenate(found), oracle, rtol=0, atol=1e-10 * np.abs(oracle).max())
    whole = decay_contributions(gamma, init, RATES, weight_decay=DECAY, momentum=momentum, nesterov=nesterov)
    np.testing.assert_array_equal(np.concatenate(found), whole)


def test_adamw() -> None:
    model = nn.Linear(4, 3, bias=False, dtype=torch.float64)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=DECAY)
    inputs, weights, decays = drawn(QUERIES, 4, seed=5), [model.weight.detach().clone()], []
    for t, rate in enumerate(RATES):
        optimizer.zero_grad()
        (model(drawn(8, 4, seed=t + 1)) - drawn(8, 3, seed=t + 99)).square().mean().backward()
        twin = nn.Linear(4, 3, bias=False, dtype=torch.float64)  # the same step and state without decay
        twin.load_state_dict(model.state_dict())
        assert model.weight.grad is not None
        twin.weight.grad = model.weight.grad.clone()
        plain = torch.optim.AdamW(twin.parameters())
        plain.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        plain.param_groups[0]["weight_decay"] = 0.0
        optimizer.param_groups[0]["lr"] = plain.param_groups[0]["lr"] = float(rate)
        optimizer.step()
        plain.step()
        decays.append(model.weight.detach() - twin.weight.detach())
        weights.append(model.weight.detach().clone())
    updates = torch.stack(weights).diff(dim=0)
    gamma = contributions(model, weights[-1], inputs, updates).gamma.T.numpy()
    init = contributions(model, weights[-1], inputs, weights[0][None]).gamma[:, 0].numpy()
    oracle = contributions(model, weights[-1], inputs, torch.stack(decays)).gamma.T.numpy()
    found = decay_contributions(gamma, init, RATES, weight_decay=DECAY, decoupled=True)
    np.testing.assert_allclose(found, oracle, rtol=0, atol=1e-10 * np.abs(oracle).max())


def test_series_of_a_config() -> None:
    init, gamma, rates = np.array([2.0]), np.array([[-1.0], [0.0]]), np.array([0.1, 0.1])
    assert decay_series({"kind": "sgd", "lr": 0.1}, init) is None
    assert decay_series({"kind": "adam", "weight_decay": 0.1}, init) is None
    for optimizer, expected in (
        ({"weight_decay": 0.5}, [-0.1, -0.05]),  # w = 2, then 1
        ({"kind": "sam", "weight_decay": 0.5, "momentum": 0.5}, [-0.1, -0.1]),  # v = 1, then 0.5 + 0.5
        ({"kind": "sgd", "weight_decay": 0.5, "momentum": 0.5, "nesterov": True}, [-0.15, -0.1]),
        ({"kind": "adamw"}, [-0.002, -0.001]),
    ):
        series = decay_series(optimizer, init)
        assert series is not None
        np.testing.assert_allclose(series.update(gamma, rates)[:, 0], expected)
    with pytest.raises(ValueError, match="optimizer: expected sgd, sam, adamw or adam, found kind 'lion'"):
        decay_series({"kind": "lion", "weight_decay": 0.1}, init)


def test_what_is_refused() -> None:
    init = np.zeros(3)
    with pytest.raises(ValueError, match="expected weight_decay >= 0 and 0 <= momentum < 1, found -1 and 0"):
        DecaySeries(init, weight_decay=-1)
    with pytest.raises(ValueError, match="decoupled: expected no momentum or nesterov, found some"):
        DecaySeries(init, weight_decay=0.1, momentum=0.9, decoupled=True)
    with pytest.raises(ValueError, match="nesterov: expected a momentum above 0"):
        DecaySeries(init, weight_decay=0.1, nesterov=True)
    with pytest.raises(ValueError, match=r"gamma: expected shape \(2, 3\), found \(3, 2\)"):
        DecaySeries(init, weight_decay=0.1).update(np.zeros((3, 2)), np.zeros(2))


@pytest.mark.parametrize(
    ("optimizer", "recorded", "expected"),
    [
        ({"weight_decay": 0.1, "momentum": 0.9}, "111", 3),
        ({"weight_decay": 0.1, "momentum": 0.9}, "1101", 2),
        ({"weight_decay": 0.1, "momentum": 0.9}, "1100", 4),  # nothing that is recorded follows
        ({"weight_decay": 0.1, "momentum": 0.9}, "01", 0),
        ({"weight_decay": 0.1}, "1101", 4),
        ({"kind": "adamw", "weight_decay": 0.1}, "1101", 4),
        ({"kind": "adam", "weight_decay": 0.1}, "111", 0),
        ({"kind": "adam"}, "101", 3),
        ({"momentum": 0.9}, "101", 3),
    ],
)
def test_how_long_decay_can_be_told(optimizer: dict[str, object], recorded: str, expected: int) -> None:
    assert decay_known(optimizer, np.array([step == "1" for step in recorded])) == expected
