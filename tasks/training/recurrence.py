"""Recurrent layers in a form that torch differentiates twice: cuDNN's kernels have a first derivative only."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def open_recurrence(model: nn.Module) -> Iterator[None]:
    """Run a network's recurrent layers on a GPU by torch's own kernels in the block.

    Raises
    ------
    ValueError : dropout between layers of such a module, which draws other numbers there than in the training
    """
    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.RNNBase) and next(m.parameters()).is_cuda}
    for name, module in layers.items():
        if module.dropout and module.num_layers > 1:
            raise ValueError(
                f"layer {name!r}: expected a recurrent layer on a GPU without dropout between its layers, found "
                f"{module.dropout:g}; cuDNN has no second derivative, and other kernels draw other numbers"
            )
    if not layers:
        yield
        return
    with torch.backends.cudnn.flags(enabled=False):
        yield
