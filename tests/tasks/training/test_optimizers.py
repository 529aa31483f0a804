"""Optimisers by name are torch's own: the same updates from the same gradients."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tasks.training.optimizers import OPTIMIZERS

KINDS: list[tuple[str, type[torch.optim.Optimizer], dict[str, Any]]] = [
    ("sgd", torch.optim.SGD, {"lr": 0.1}),
    ("sgd", torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("adam", torch.optim.Adam, {"lr": 0.1, "betas": [0.8, 0.9], "eps": 1e-6, "weight_decay": 0.1}),
    ("adamw", torch.optim.AdamW, {"lr": 0.1, "betas": (0.8, 0.9), "weight_decay": 0.1}),
]


@pytest.mark.parametrize(("name", "theirs", "settings"), KINDS)
def test_updates_are_torchs(name: str, theirs: type[torch.optim.Optimizer], settings: dict[str, Any]) -> None:
    start = torch.arange(6.0).reshape(2, 3) - 2
    found = []
    for make in (OPTIMIZERS[name], theirs):
        weight = nn.Parameter(start.clone())
        optimizer = make([weight], **settings)

        def closure(weight: Tensor = weight) -> Tensor:
            weight.grad = weight.detach().sin() + 0.1
            return weight.detach().sum()

        for _ in range(5):
            optimizer.step(closure)  # type: ignore[arg-type]  # the stub wants a float
        found.append(weight.detach())
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-7)


def test_adams_first_step_is_the_sign_of_the_gradient() -> None:
    weight = nn.Parameter(torch.tensor([1.0, -2.0]))
    weight.grad = torch.tensor([0.5, -4.0])
    OPTIMIZERS["adam"]([weight], lr=0.1).step()
    torch.testing.assert_close(weight.detach(), torch.tensor([0.9, -1.9]))
