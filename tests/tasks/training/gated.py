"""A small network in float64 with class-specific gates, its samples and its optimiser."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tasks.training.batches import Positions
from tasks.training.gates import ClassGates
from tasks.training.optimizers import OPTIMIZERS

N, CHANNELS, CLASSES = 30, 4, 3
LABELS = np.arange(N, dtype=np.int64) % CLASSES
INPUTS = torch.randn((N, 2, 4, 4), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
SGD = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}
GATES = {"lr": 0.5, "momentum": 0.5}


def fetch(positions: Positions) -> tuple[Tensor, Tensor]:
    """Return samples by position."""
    return INPUTS[torch.from_numpy(positions)], torch.from_numpy(LABELS[positions])


def network(*, norm: bool = False) -> nn.Sequential:
    """Return a seeded network in float64; its module 1 or 2 puts out the last map."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        start = [nn.Conv2d(2, CHANNELS, 3), *([nn.BatchNorm2d(CHANNELS)] if norm else []), nn.ReLU()]
        end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, CLASSES)]
        return nn.Sequential(*start, *end).double()


def grouped(model: nn.Module, gates: ClassGates, **settings: Any) -> torch.optim.Optimizer:  # Any: of SGD
    """Return one optimiser with the gates as a group of their own, as a training makes it."""
    own = {**GATES, "weight_decay": 0.0, "nesterov": False}
    groups = [{"params": list(model.parameters())}, {"params": [gates.weight], **own}]
    return OPTIMIZERS["sgd"](groups, **{**SGD, **settings})
