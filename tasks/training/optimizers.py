"""Optimisers by name: torch's own, and SAM."""

from collections.abc import Callable
from functools import partial

import torch

from tasks.training.sam import Sam

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    # foreach and fused kernels sum in another order; the plain loop is the same on all devices
    "sgd": partial(torch.optim.SGD, foreach=False, fused=False),
    "adam": partial(torch.optim.Adam, foreach=False, fused=False),
    "adamw": partial(torch.optim.AdamW, foreach=False, fused=False),
    "sam": Sam,
}
