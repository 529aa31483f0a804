"""The recurrences of SGD against torch.optim in float64."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from storage.updates.tables import Settings
from tasks.recording.recurrences import State, advance, carried_shares, own_share, settings_of, whole_shares

STEPS = 25
GROUPS: dict[str, dict[str, Any]] = {  # Any: torch's own settings
    "plain": {},
    "decay": {"weight_decay": 0.03},
    "heavy ball": {"momentum": 0.9, "weight_decay": 0.01},
    "dampening": {"momentum": 0.8, "dampening": 0.3, "weight_decay": 0.01},
    "nesterov": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.02},
    "maximize": {"momentum": 0.7, "weight_decay": 0.02, "maximize": True},
}


def trained(group: dict[str, Any]) -> tuple[list[Tensor], list[Tensor], list[Settings]]:  # Any: as in GROUPS
    """Return weights before and after each step, gradients before clipping, and settings."""
    generator = torch.Generator().manual_seed(4)
    weight = torch.nn.Parameter(torch.randn(5, 4, generator=generator, dtype=torch.float64))
    optimizer = torch.optim.SGD([weight], lr=0.1, **group)
    weights, gradients, settings = [weight.detach().clone()], [], []
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 0.1 / (1 + step)
        gradient = torch.randn(5, 4, generator=generator, dtype=torch.float64)
        scale = min(1.0, 3.0 / float(gradient.norm()))
        weight.grad = gradient * scale
        fresh = bool(group.get("momentum")) and optimizer.state[weight].get("momentum_buffer") is None
        settings.append(settings_of(optimizer.param_groups[0], fresh=fresh, scale=scale))
        optimizer.step()
        weights.append(weight.detach().clone())
        gradients.append(gradient)
    return weights, gradients, settings


@pytest.mark.parametrize("name", GROUPS)
def test_numbers_follow_torch(name: str) -> None:
    weights, gradients, settings = trained(GROUPS[name])
    query = torch.randn(5, 4, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    state = State((weights[0] * query).sum())
    for t, step in enumerate(settings):
        gamma = advance(state, step, (gradients[t] * query).sum())
        np.testing.assert_allclose(float(gamma), float(((weights[t + 1] - weights[t]) * query).sum()), atol=1e-12)
    assert state.weights is not None
    np.testing.assert_allclose(float(state.weights), float((weights[-1] * query).sum()), atol=1e-12)


@pytest.mark.parametrize("name", GROUPS)
def test_shares_add_up_to_the_way_of_the_weights(name: str) -> None:
    """Without decay, the sum of all gradients times their shares is the whole change of the weights."""
    group = {**GROUPS[name], "weight_decay": 0.0}
    weights, gradients, settings = trained(group)
    shares = whole_shares(settings)
    found = sum((share * gradient for share, gradient in zip(shares, gradients, strict=True)), torch.zeros(5, 4))
    np.testing.assert_allclose(found, weights[-1] - weights[0], atol=1e-12)


@pytest.mark.parametrize("name", GROUPS)
def test_the_own_share_is_the_derivative_of_the_update(name: str) -> None:
    _, _, settings = trained(GROUPS[name])
    for step in settings[:3]:
        one, none = (
            advance(State(torch.zeros(()), torch.zeros(())), step, torch.tensor(value, dtype=torch.float64))
            for value in (1.0, 0.0)
        )
        np.testing.assert_allclose(own_share(step), float(one - none), atol=1e-15)


def test_a_cut_ends_the_momentum() -> None:
    step = Settings(lr=1.0, momentum=0.5)
    assert whole_shares([step, step, step]) == [-1.75, -1.5, -1.0]
    assert whole_shares([step, None, step]) == [-1.0, 0.0, -1.0]
    fresh = Settings(lr=1.0, momentum=0.5, fresh=True)
    assert whole_shares([step, fresh, step]) == [-1.0, -1.5, -1.0]
    still = Settings()  # no gradient: the buffer waits
    assert whole_shares([step, still, step]) == [-1.5, 0.0, -1.0]


@pytest.mark.parametrize("name", GROUPS)
def test_a_buffer_has_its_carried_share_of_the_way_of_the_weights(name: str) -> None:
    """The way from a buffer of 1 in the midst of a training, less that from a buffer of 0."""
    _, _, settings = trained(GROUPS[name])
    plain = [replace(step, weight_decay=0.0) for step in settings]
    for start in (0, 7, STEPS - 1):
        ways = []
        for held in (0.0, 1.0):
            state = State(torch.zeros((), dtype=torch.float64), torch.tensor(held, dtype=torch.float64))
            ways.append(sum(float(advance(state, step, torch.zeros(()))) for step in plain[start + 1 :]))
        momentum = bool(GROUPS[name].get("momentum"))
        assert (carried_shares(settings)[start] != 0) == (momentum and start < STEPS - 1)
        np.testing.assert_allclose(carried_shares(settings)[start], ways[1] - ways[0], atol=1e-14)
