"""TracIn at a checkpoint: products of gradients of two sets of samples (Pruthi et al. 2020, Eq. 1 and Section 3.2)."""

from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

Part = TypeVar("Part", bound=Hashable)  # what names a weight


def gradient_products(
    queries: Mapping[Part, Tensor], examples: Mapping[Part, Tensor], rate: Callable[[Part], float]
) -> Tensor:
    """Return lr <grad of a query, grad of an example>, summed over the weights, (Q, B) float64.

    Parameters
    ----------
    queries : gradients (Q, *shape) by weight
    examples : gradients (B, *shape) of the same weights
    rate : learning rate of a weight
    """
    found = (rate(part) * (_flat(queries[part]) @ _flat(slope).T).double() for part, slope in examples.items())
    return torch.stack(list(found)).sum(0)


def self_products(examples: Mapping[Part, Tensor], rate: Callable[[Part], float]) -> Tensor:
    """Return lr |grad of an example|^2, summed over the weights, (B,) float64; parameters as in `gradient_products`."""
    found = (rate(part) * _flat(slope).square().sum(1).double() for part, slope in examples.items())
    return torch.stack(list(found)).sum(0)


def _flat(gradients: Tensor) -> Tensor:
    """Return the gradients of a weight as rows."""
    return gradients.reshape(len(gradients), -1)
