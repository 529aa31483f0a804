"""The way of a layer with factors through a segment: its updates, or their images under a batch of queries.

A trace starts from the checkpoint before the segment and goes on from the row that it reached, so that blocks in
order read each factor once. A request for an earlier row starts again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from storage.updates.records import RecordReader
from storage.updates.tables import EXPLAINED, FACTORED, HALVES, ROUNDED, STILL, Record, Settings
from tasks.recording.codes import decode
from tasks.recording.factors import Factors
from tasks.recording.halves import unpack_halves
from tasks.recording.recurrences import State, advance


@dataclass(frozen=True)
class Moved:
    """An update that factors do not explain.

    Parameters
    ----------
    values : (*shape) the update, or the weights after it
    momentum : (*shape) after it, None without one; later steps then begin their momentum
    adds : whether the values are the update
    """

    values: Tensor
    momentum: Tensor | None
    adds: bool


@dataclass
class FactorTrace:
    """The rows of a layer in a segment.

    Parameters
    ----------
    module : gives the operation
    weights, momentum : (*shape) at the checkpoint before; momentum is None without a buffer
    records : of each row
    reader : of their bytes
    ending : reads the momentum (*shape) after the last row, None without a buffer
    """

    module: nn.Module
    weights: Tensor
    momentum: Tensor | None
    records: Sequence[Record]
    reader: RecordReader
    ending: Callable[[], Tensor | None]
    _row: int = field(default=0, init=False)
    _state: State | None = field(default=None, init=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight."""
        return tuple(self.weights.shape)

    def start(self) -> State:
        """Return the state before the first row."""
        return State(self.weights, self.momentum)

    def updates(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Return the weights before row `start` (*shape), and the updates of rows `start:stop` (n, *shape)."""
        if self._state is None or self._row > start:
            self._row, self._state = 0, self.start()
        for row in range(self._row, start):
            self._update(self._state, row)
        before, found = self._state.weights, self.weights.new_zeros(stop - start, *self.shape)
        for row in range(start, stop):
            found[row - start] = self._update(self._state, row)
        self._row = stop
        assert before is not None
        return before, found

    def factors(self, record: Record) -> Factors:
        """Return the factors of a record."""
        size = int(np.prod(record.inputs))
        if record.form == HALVES:
            counts = size, int(np.prod(record.gradients))
            values = unpack_halves(self.reader.read(record.place), counts, self.weights.dtype)
        else:
            values = self._values(record)
        return Factors(self.module, self.shape, values[:size].view(record.inputs), values[size:].view(record.gradients))

    def moved(self, record: Record, *, split: bool = False) -> Moved:
        """Return where a row leads that factors do not explain.

        Parameters
        ----------
        split : whether the momentum after the last row is needed where no record has it
        """
        if record.form in ROUNDED:
            data = torch.from_numpy(self.reader.read(record.place).copy())
            momentum = self.ending() if split and record is self.records[-1] else None
            return Moved(decode(record.form, data, self.shape, self.weights.dtype), momentum, adds=True)
        values = self._values(record)
        size = self.weights.numel()
        momentum = values[size:].view(self.shape) if record.momentum else None
        return Moved(values[:size].view(self.shape), momentum, adds=False)

    def settings(self) -> list[Settings | None]:
        """Return the settings of each row; None where factors do not explain it."""
        return [record.settings if record.form in EXPLAINED else None for record in self.records]

    def _update(self, state: State, row: int) -> Tensor:
        """Return the update of a row, and move the state past it."""
        record = self.records[row]
        if record.form == STILL:
            return torch.zeros_like(self.weights)
        if record.form in FACTORED:
            return advance(state, record.settings, self.factors(record).gradient())
        found = self.moved(record)
        assert state.weights is not None
        update = found.values if found.adds else found.values - state.weights
        state.weights = state.weights + update if found.adds else found.values
        state.momentum = found.momentum
        return update

    def _values(self, record: Record) -> Tensor:
        """Return the numbers of a record, a copy."""
        return torch.from_numpy(self.reader.read(record.place).copy()).view(self.weights.dtype)
