"""Gradient clipping by the norm of the whole gradient."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

SMALL = 1e-6  # as in torch.nn.utils.clip_grad_norm_


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> float:
    """Scale gradients in place where their common norm exceeds `max_norm`.

    Returns
    -------
    the factor of the gradients, 1.0 where they are unchanged: min(1, max_norm / (norm + 1e-6))
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    factor = float(clip_factor(gradients, max_norm))
    if factor != 1.0:  # NaN is applied too, so that it becomes visible
        for gradient in gradients:
            gradient.mul_(factor)
    return factor


def clip_factor(gradients: Sequence[Tensor], max_norm: float) -> Tensor:
    """Return the factor of gradients with a common norm of at most `max_norm`, a number; differentiable."""
    norm: Tensor = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(slope) for slope in gradients]))
    return (max_norm / (norm + SMALL)).clamp(max=1.0)
