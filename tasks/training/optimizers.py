"""Optimisers by name."""

from collections.abc import Callable
from functools import partial

import torch

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    # foreach and fused kernels sum in orders of their own; the plain loop is the same everywhere
    "sgd": partial(torch.optim.SGD, foreach=False, fused=False),
}
