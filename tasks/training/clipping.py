"""Gradient clipping by the norm of the whole gradient."""

from collections.abc import Iterable

import torch
from torch import nn

SMALL = 1e-6  # as in torch.nn.utils.clip_grad_norm_


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> float:
    """Scale gradients in place where their common norm exceeds `max_norm`.

    Returns
    -------
    the factor of the gradients, 1.0 where they are unchanged: min(1, max_norm / (norm + 1e-6))
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]))
    factor = float((max_norm / (norm + SMALL)).clamp(max=1.0))
    if factor != 1.0:  # NaN is applied too, so that it becomes visible
        for gradient in gradients:
            gradient.mul_(factor)
    return factor
