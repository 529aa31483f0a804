"""Batch norm in a training as a function: what its running statistics become, and what they make of an input."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tasks.tracing.optimizer_rules import BUFFER, Part, State
from tasks.training.ghost_norm import GhostBatchNorm, running_moments

Moments = dict[str, list[tuple[Tensor, Tensor]]]  # mean and unbiased variance of each call, by module


def running_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """Return the batch norms that keep running statistics, by name."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}
    return {name: norm for name, norm in found.items() if norm.track_running_stats and norm.running_mean is not None}


def names_of(norm: str) -> tuple[str, str, str]:
    """Return the names of a batch norm's running statistics."""
    return f"{norm}.running_mean", f"{norm}.running_var", f"{norm}.num_batches_tracked"


def followed(name: str, norm: _BatchNorm, state: State, calls: list[tuple[Tensor, Tensor]]) -> dict[Part, Tensor]:
    """Return the running statistics of a batch norm after a step."""
    keys = [(BUFFER, f"{name}.running_mean"), (BUFFER, f"{name}.running_var")]
    found, count = [state.tensors[key] for key in keys], state.counts[f"{name}.num_batches_tracked"]
    for number, moments in enumerate(calls, count + 1):
        share = 1 / number if norm.momentum is None else norm.momentum
        found = [(1 - share) * before + share * now for before, now in zip(found, moments, strict=True)]
    return dict(zip(keys, found, strict=True))


@contextmanager
def watched(norms: Mapping[str, _BatchNorm], moments: Moments) -> Iterator[None]:
    """Keep the moments of what each batch norm takes in the block; differentiable.

    An attack lends the norms other buffers for its passes. These passes do not count, as in the training itself.
    """
    own = {name: norm.running_mean for name, norm in norms.items()}

    def keep(name: str, norm: _BatchNorm, given: tuple[Tensor, ...]) -> None:
        if norm.running_mean is own[name]:
            moments.setdefault(name, []).append(running_moments(norm, given[0]))

    handles = [
        norm.register_forward_pre_hook(lambda module, given, name=name: keep(name, module, given))
        for name, norm in norms.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def held_ghosts(model: nn.Module, run: Callable[[], object]) -> Iterator[None]:
    """Give norms that detach their ghosts the ghosts of a separate pass for the block.

    The gradient of a step does not flow through detached ghosts, but its value depends on theirs. Therefore the ghosts
    keep the graph of the parameters of `run`, a forward pass, and a gradient in the block is by copies of these.
    """
    norms = [norm for norm in model.modules() if isinstance(norm, GhostBatchNorm) and norm.detach_ghosts]
    if not norms:
        yield
        return
    handles = [norm.register_forward_pre_hook(_hold_ghosts) for norm in norms]
    try:
        for norm in norms:
            norm.detach_ghosts = False
        run()
        for norm, handle in zip(norms, handles, strict=True):
            handle.remove()
            norm.detach_ghosts = True
        yield
    finally:
        for norm, handle in zip(norms, handles, strict=True):
            handle.remove()
            norm.detach_ghosts, norm.held = True, ()


@contextmanager
def written_out(norms: Iterable[_BatchNorm]) -> Iterator[None]:
    """Compute batch norms in evaluation mode by their formula: torch's kernels do not differentiate the statistics."""
    try:
        for norm in norms:
            norm.forward = partial(_normalised, norm)  # type: ignore[method-assign]  # for the block
        yield
    finally:
        for norm in norms:
            norm.__dict__.pop("forward", None)


def _hold_ghosts(norm: GhostBatchNorm, given: tuple[Tensor, ...]) -> None:
    """Keep the ghosts that a norm takes."""
    norm.held = (given[0][norm.cut(given[0]) :],)


def _normalised(norm: _BatchNorm, input: Tensor) -> Tensor:
    """Return an input normalised by the running statistics."""
    shape = (1, -1, *[1] * (input.ndim - 2))
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = torch.rsqrt(norm.running_var + norm.eps)
    scale = scale if norm.weight is None else scale * norm.weight
    found = (input - norm.running_mean.view(shape)) * scale.view(shape)
    return found if norm.bias is None else found + norm.bias.view(shape)
