"""One segment of a hybrid archive: its table of records, and the way of each layer through it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor

from storage.documents import DamagedError
from storage.updates.bits import Ints
from storage.updates.ledger import row_runs
from storage.updates.parameters import Layer, Parameter
from storage.updates.reader import BitRows, SegmentReader, cut_rows, read_state
from storage.updates.records import RECORDS, RecordReader
from storage.updates.tables import FACTORED, TABLE, Record, read_table
from storage.updates.writer import UPDATES
from tasks.recording.codes import decode
from tasks.recording.dense import tensor_of
from tasks.recording.factors import build_module
from tasks.recording.hybrid_blocks import RoundedBlock
from tasks.recording.traces import FactorTrace

BLOCK = 8 * 2**20  # bytes of the updates of a block, unless one update is larger


@dataclass(frozen=True)
class Start:
    """The state before a segment: bit patterns (P,) of parameters and of momentum buffers, by the parameter's name."""

    weights: dict[str, Ints]
    momentum: dict[str, Ints]


@dataclass(frozen=True)
class HybridSegment:
    """Reads a segment. Holds its ledger and table, but not its state."""

    reader: SegmentReader

    @cached_property
    def facts(self) -> dict[str, Any]:  # Any: JSON
        """The codes of parameters, the stated errors of layers, and what else the writer states."""
        group = json.loads(self.reader.stage.read_file(f"{self.reader.segment.folder}/{UPDATES}/zarr.json"))
        facts: dict[str, Any] = group["attributes"]["layerlore"]  # Any: JSON
        return facts

    @cached_property
    def records(self) -> dict[str, list[Record]]:
        """The record of each row, by the parameter's name."""
        name = f"{self.reader.segment.folder}/{TABLE}"
        what = f"{self.reader.stage.path}/files/{name}"
        found = read_table(self.reader.stage.read_file(name), what)
        for parameter, records in found.items():
            if len(records) != self.facts["rows"]:
                raise DamagedError(
                    f"{what}: expected {self.facts['rows']} records of {parameter!r}, found {len(records)}"
                )
        return found

    def has_members(self, weight: str) -> bool:
        """Return whether the factors of a weight have a sample for each member of each step."""
        ledger = self.reader.ledger
        counts = [len(e) + len(g) for e, g in zip(ledger["examples"], ledger["ghosts"], strict=True)]
        members = dict(zip(ledger["row"], counts, strict=True))  # a row of a gap does not have factors
        return all(r.inputs[0] == members[row] for row, r in enumerate(self.records[weight]) if r.form in FACTORED)

    def start(self, layers: list[str]) -> Start:
        """Return the state of some layers before the segment. Reads a checkpoint whole."""
        return self._state(layers, self.reader.segment.before)

    def _state(self, layers: list[str], checkpoint: str) -> Start:
        """Return the state of some layers in a checkpoint."""
        known, parameters = self.reader.contents
        names = {name for layer in layers for name in known[layer].parameters}
        chosen = [parameters[name] for name in names]
        momentum = {str(name): int(index) for name, index in self.facts["momentum"].items()}
        return Start(*read_state(self.reader.stage, checkpoint, chosen, momentum))

    def trace(self, entry: Layer, start: Start) -> FactorTrace:
        """Return the way of a layer with factors through the segment."""
        parameter = self.reader.contents[1][entry.weight]

        def momentum_of(state: Start) -> Tensor | None:
            held = state.momentum.get(entry.weight)
            return None if held is None else tensor_of(held[None], parameter)[0]

        return FactorTrace(
            build_module(self.facts["modules"][entry.name]),
            tensor_of(start.weights[entry.weight][None], parameter)[0],
            momentum_of(start),
            self.records[entry.weight],
            self._records_of(entry.weight),
            cache(lambda: momentum_of(self._state([entry.name], self.reader.segment.after))),
        )

    def runs(self, entry: Layer) -> Iterator[tuple[range, range, bool]]:
        """Yield (rows, steps, recorded) of the blocks of a layer without all bits."""
        size = max(1, BLOCK // max(1, self.reader.contents[1][entry.weight].nbytes))
        for rows, steps, recorded in row_runs(self.reader.ledger):
            for low, high in cut_rows(rows, size):
                part = range(steps[low - rows.start], steps[high - 1 - rows.start] + 1) if recorded else steps
                yield range(low, high), part, recorded

    def bias_rows(self, entry: Layer, start: Start) -> Callable[[int], Tensor | None]:
        """Return a function of a count that returns the biases before the next rows and after each, if any."""
        if entry.bias is None:
            return lambda _: None
        parameter = self.reader.contents[1][entry.bias]
        stream = BitRows(self.reader, parameter, start.weights[entry.bias])
        return lambda count: tensor_of(stream.take(count), parameter)

    def rounded_blocks(self, entry: Layer, start: Start) -> Iterator[RoundedBlock]:
        """Yield the updates of a layer that are kept rounded."""
        parameter, records = self.reader.contents[1][entry.weight], self.records[entry.weight]
        reader, biases = self._records_of(entry.weight), self.bias_rows(entry, start)
        before = tensor_of(start.weights[entry.weight][None], parameter)[0]
        for rows, steps, recorded in self.runs(entry):
            updates = torch.stack([_decoded(reader, record, parameter) for record in records[rows.start : rows.stop]])
            yield RoundedBlock(entry.name, steps.start, steps.stop, recorded, biases(len(rows)), before, updates)
            before = before + updates.sum(dim=0)

    def _records_of(self, name: str) -> RecordReader:
        """Return the reader of a parameter's records."""
        stage, folder = self.reader.stage, self.reader.segment.folder
        return RecordReader(stage.store, f"{stage.path}/files/{folder}/{RECORDS}/{name}")


def _decoded(reader: RecordReader, record: Record, parameter: Parameter) -> Tensor:
    """Return a rounded update (*shape)."""
    data = torch.from_numpy(reader.read(record.place).copy())
    return decode(record.form, data, parameter.shape, getattr(torch, parameter.dtype))
