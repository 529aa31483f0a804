"""A training that can be repeated: a user's program, and the protocol for any other."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from tasks.recording.checkpoints import load_checkpoint, pack_checkpoint

Ids = NDArray[np.int64]


@dataclass
class Row:
    """A step: what a loop gave, or what a program makes again; either may set the last facts.

    Parameters
    ----------
    step, epoch, label : index of the update, epoch, and class of all examples or -1
    examples, ghosts : ids in the order of the batch, int64
    loss : loss before the update; a number or a tensor of one number
    clip : factor of clipping on the gradient; 1.0 for none
    augmentation : seed of the augmentation, -1 for none
    """

    step: int
    epoch: int
    label: int
    examples: Ids
    ghosts: Ids
    loss: Any = float("nan")  # Any: floats, tensors and NumPy numbers
    clip: float = 1.0
    augmentation: int = -1
    lrs: tuple[float, ...] = field(default=(), repr=False)  # learning rate of each group of the optimiser
    calls: int = field(default=0, repr=False)  # calls of `optimizer.step` in a loop's block


Program = Callable[[], tuple[nn.Module, torch.optim.Optimizer, Callable[[Row], object]]]


class Repeated(Protocol):
    """A training at any state, which can make recorded steps again."""

    @property
    def model(self) -> nn.Module: ...

    @property
    def optimizer(self) -> torch.optim.Optimizer: ...

    def load(self, data: bytes, what: str) -> None:
        """Restore the state of a checkpoint and of random generators; errors begin with `what`."""
        ...

    def pack(self) -> bytes:
        """Return the present state as a checkpoint."""
        ...

    def steps(self, rows: Sequence[Row]) -> Iterator[None]:
        """Make one update for each row, the first of which is the next step."""
        ...


Repeat = Callable[[], Repeated]


@dataclass(frozen=True)
class ProgramRun:
    """The training of a user's program.

    Parameters
    ----------
    model, optimizer, step : what the program returned
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    step: Callable[[Row], object]

    def load(self, data: bytes, what: str) -> None:
        """Restore model, optimiser and random generators; remove gradients."""
        for parameter in self.model.parameters():
            parameter.grad = None
        load_checkpoint(data, self.model, self.optimizer, what)

    def pack(self) -> bytes:
        """Return the state of model, optimiser and random generators."""
        return pack_checkpoint(self.model, self.optimizer)

    def steps(self, rows: Sequence[Row]) -> Iterator[None]:
        """Make the updates with the recorded learning rates."""
        for row in rows:
            set_lrs(self.optimizer, row.lrs)
            self.step(row)
            yield


@dataclass(frozen=True)
class RepeatProgram:
    """A function that begins a user's program again; picklable if the program is."""

    program: Program

    def __call__(self) -> ProgramRun:
        """Call the program.

        Raises
        ------
        TypeError : it does not return model, optimiser and step
        """
        made = self.program()
        if not (isinstance(made, tuple) and len(made) == 3 and callable(made[2])):
            raise TypeError(f"program: expected (model, optimizer, step) from its call, found {type(made).__name__}")
        return ProgramRun(*made)


def set_lrs(optimizer: torch.optim.Optimizer, lrs: Sequence[float]) -> None:
    """Set the learning rate of each group; one that is a tensor stays the same object."""
    for group, lr in zip(optimizer.param_groups, lrs, strict=True):
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def step_row(step: int) -> Row:
    """Return a step of a training that knows its own batches."""
    none = np.empty(0, np.int64)
    return Row(step, 0, -1, none, none)


def step_rows(ledger: pd.DataFrame) -> list[Row]:
    """Return the steps of a ledger."""
    columns: Mapping[str, Any] = {name: list(ledger[name]) for name in ("step", "epoch", "label", "lrs")}  # Any: cells
    return [
        Row(int(step), int(epoch), int(label), _ids(examples), _ids(ghosts), lrs=tuple(map(float, lrs)))
        for step, epoch, label, lrs, examples, ghosts in zip(
            *columns.values(), ledger["examples"], ledger["ghosts"], strict=True
        )
    ]


def _ids(cell: Ids) -> Ids:
    """Return ids of a table as an array that a program may change, and torch may take without a warning."""
    return np.array(cell, np.int64)
