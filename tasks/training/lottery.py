"""Lottery tickets (Frankle & Carbin 2019): pruning by magnitude, masks that stay, and batch norm of a pruned start."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from tasks.training.neutral import Neutral


def prune(weights: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None, fraction: float) -> dict[str, Tensor]:
    """Remove the smallest of the remaining weights, over all tensors together.

    Parameters
    ----------
    weights : by parameter name, of any shapes
    masks : the masks of the stage before, bool by name, True where a weight remains; None at the first stage
    fraction : share of the remaining weights to remove, in [0, 1]

    Returns
    -------
    new masks by name: `ceil(fraction * remaining)` more weights are removed

    Raises
    ------
    TypeError : masks that are not bool
    ValueError : other names or shapes, NaN, a fraction out of range

    Notes
    -----
    Of equal magnitudes, the weights of the tensor that comes first in `weights` are removed first, and in a tensor
    those of lower index in row-major order.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction: expected a number in [0, 1], found {fraction}")
    kept = _checked(weights, masks)
    if not weights:
        return {}
    mask = torch.cat([kept[name].reshape(-1) for name in weights])
    sizes = torch.cat([weight.detach().abs().double().reshape(-1) for weight in weights.values()])
    left = mask.nonzero()[:, 0]
    order = torch.sort(sizes[left], stable=True).indices
    mask[left[order[: math.ceil(fraction * len(left))]]] = False
    parts = torch.split(mask, [weight.numel() for weight in weights.values()])
    return {name: part.reshape(weights[name].shape).clone() for name, part in zip(weights, parts, strict=True)}


def prunable(model: nn.Module) -> list[str]:
    """Return the names of the parameters that pruning acts on: weights of convolutions and linear layers."""
    found = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear | _ConvNd)}
    return [name for name, parameter in model.named_parameters() if id(parameter) in found]


@dataclass(frozen=True)
class Masking(Neutral):
    """Masks as the companion of a training: pruned weights stay 0, whatever the optimiser does.

    Gradients of pruned weights are 0 before they are clipped. So momentum and moments stay 0, and SAM's ascent does
    not move pruned weights.

    Parameters
    ----------
    pruned : by name in the model, a parameter and a bool tensor of its shape, True where the weight is pruned
    """

    pruned: Mapping[str, tuple[nn.Parameter, Tensor]]

    def after_backward(self) -> None:
        """Set the gradients of pruned weights to 0."""
        for parameter, gone in self.pruned.values():
            if parameter.grad is not None:
                parameter.grad.masked_fill_(gone, 0.0)

    @torch.no_grad()
    def after_update(self) -> None:
        """Set pruned weights to 0: an optimiser may divide 0 by 0."""
        for parameter, gone in self.pruned.values():
            parameter.masked_fill_(gone, 0.0)

    def masked(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return gradients or weights of the model with 0 for pruned weights; differentiable."""
        gone = {name: pruned for name, (_, pruned) in self.pruned.items() if name in tensors}
        return {name: t.masked_fill(gone[name], 0.0) if name in gone else t for name, t in tensors.items()}


def prepare_masks(
    settings: Mapping[str, Any], model: nn.Module, example: Tensor, images: Tensor
) -> Callable[[nn.Module], Masking]:  # Any: `masks`, bool tensors by name, True where a weight remains
    """Return a function that attaches masks."""
    masks: Mapping[str, Tensor] = settings["masks"]

    def attach(trained: nn.Module) -> Masking:
        named = dict(trained.named_parameters())
        return Masking({name: (named[name], ~mask.to(named[name].device)) for name, mask in masks.items()})

    return attach


def masked(state: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict with 0 in place of pruned weights."""
    return {name: value.where(masks[name], 0.0) if name in masks else value for name, value in state.items()}


@torch.no_grad()
def estimate_statistics(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set batch norm's running statistics to their means over batches, in place; a model without batch norm stays.

    Parameters
    ----------
    model : in evaluation mode, in which everything but batch norm stays
    batches : inputs (n, ...), of equal sizes where each image should count equally
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    with _averaging(norms):
        for inputs in batches:
            if not norms:
                return
            model(inputs)


@contextmanager
def _averaging(norms: list[_BatchNorm]) -> Iterator[None]:
    """Let batch norms start their statistics again, as plain means over the batches of the block."""
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum, norm.training = None, True
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum, norm.training = momentum, False


def _checked(weights: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None) -> Mapping[str, Tensor]:
    """Return masks that fit the weights, all True at the first stage."""
    for name, weight in weights.items():
        if not bool(weight.isfinite().all()):
            raise ValueError(f"weights: expected finite numbers, found NaN or infinity in {name}")
    if masks is None:
        return {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    if masks.keys() != weights.keys():
        raise ValueError(f"masks: expected the names {', '.join(weights)}, found {', '.join(masks)}")
    for name, weight in weights.items():
        if masks[name].dtype != torch.bool:
            raise TypeError(f"masks: expected bool, found {masks[name].dtype} for {name}")
        if masks[name].shape != weight.shape:
            shapes = f"{tuple(weight.shape)}, found {tuple(masks[name].shape)}"
            raise ValueError(f"masks: expected the shape of {name}, {shapes}")
    return {name: masks[name] for name in weights}
