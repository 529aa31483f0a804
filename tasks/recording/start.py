"""Checks and defaults of a recorder before its first step."""

from collections.abc import Sequence
from numbers import Real

import torch
from torch import Tensor, nn

from storage.updates.parameters import row_bytes
from tasks.recording.archives import Contents
from tasks.recording.layers import choose_layers, recorded_parameters
from tasks.recording.optimizers import pack_optimizer

# Steps between checkpoints. With 100, checkpoints of three times the weights are 3 % of an archive of every update.
# Small networks make so many steps per second that files and partition records would cost more than that.
FEWEST, MOST = 100, 1000
SEGMENT_BYTES = 256 * 2**20
REPEATED = 500  # steps that a replay makes again at most for one, and a killed training too


def check_settings(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    checkpoint_every: int | None,
    tolerance: object,
    program: object,
) -> None:
    """Raise TypeError or ValueError for settings that would fail later, in the middle of a training."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, found {type(model).__name__}")
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer: expected a torch.optim.Optimizer, found {type(optimizer).__name__}")
    if program is not None and not callable(program):
        found = type(program).__name__
        raise TypeError(f"program: expected a function that returns model, optimizer and step, found {found}")
    if not isinstance(tolerance, Real) or not 0 <= float(tolerance) < 1:
        raise ValueError(f"tolerance: expected a number from 0 to below 1, found {tolerance!r}")
    whole = isinstance(checkpoint_every, int) and not isinstance(checkpoint_every, bool)
    if checkpoint_every is not None and (not whole or checkpoint_every < 1):
        raise ValueError(f"checkpoint_every: expected an integer of at least 1, found {checkpoint_every!r}")
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ValueError(
            "optimizer: expected steps of the length 'lr', which the ledger states, found LBFGS, which searches for a "
            "length; record with another optimiser"
        )
    _check_state(model)
    _check_parameters(model, optimizer)
    pack_optimizer(optimizer)
    for number, group in enumerate(optimizer.param_groups):
        if "lr" not in group:
            raise ValueError(
                f"optimizer: expected 'lr' in each group, which the ledger states, found none in group {number} of "
                f"{type(optimizer).__name__}; set it"
            )


def _check_state(model: nn.Module) -> None:
    """Raise ValueError where a checkpoint cannot hold a tensor of the model."""
    for name, value in model.state_dict().items():
        if isinstance(value, Tensor) and (value.is_meta or value.layout is not torch.strided):
            found = "one on the meta device" if value.is_meta else f"one of layout {value.layout}"
            raise ValueError(f"model: expected {name!r} as a dense tensor with values, found {found}")


def _check_parameters(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError for another model's optimiser, whose rates and state would be recorded as this model's.

    Layers without a parameter in the optimiser are valid: those that are frozen.
    """
    own = set(map(id, model.parameters()))
    if not any(id(parameter) in own for group in optimizer.param_groups for parameter in group["params"]):
        raise ValueError(
            "optimizer: expected an optimizer of the recorded model, found one that holds none of its parameters; one "
            "of copies, such as float32 master weights, cannot be recorded"
        )


def steps_of_a_segment(model: nn.Module, layers: Sequence[str] | None, *, recomputes: bool = False) -> int:
    """Return the default number of steps between checkpoints.

    Parameters
    ----------
    recomputes : whether the archive holds no updates, so that its checkpoints are what it costs
    """
    if recomputes:
        return REPEATED
    _, parameters, _ = recorded_parameters(choose_layers(model, layers))
    return max(FEWEST, min(MOST, SEGMENT_BYTES // max(1, row_bytes(parameters))))


def contents_of(
    model: nn.Module, optimizer: torch.optim.Optimizer, layers: Sequence[str], tolerance: float
) -> Contents:
    """Return what is known about the archive of a loop of unknown length."""
    chosen = choose_layers(model, layers)
    found, parameters, _ = recorded_parameters(chosen)
    return Contents(found, parameters, chosen, None, type(optimizer).__name__, tolerance=tolerance)
