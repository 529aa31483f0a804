"""The rounded rows of a hybrid segment: updates in float16 or int8, and whole parameters bit for bit."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from storage.checksums import Bytes, Write
from storage.updates.bits import Ints
from storage.updates.chunks import ChunkWriter, plan_chunks
from storage.updates.parameters import Layer, Parameter
from storage.updates.records import RECORDS, RecordWriter
from storage.updates.tables import Record
from storage.updates.writer import UPDATES, Written, describe_rows
from tasks.recording.codes import EXACT, encode


class RoundedRows:
    """Writes rows of some parameters. Holds a chunk for each.

    Parameters
    ----------
    layers : whose weights are among the parameters
    parameters : laid out in the rows
    codes : of each parameter
    capacities : bytes of a chunk of each parameter in records
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        parameters: Sequence[Parameter],
        codes: Mapping[str, str],
        capacities: Mapping[str, int],
        *,
        folder: str,
        steps: int,
        write: Write,
    ) -> None:
        self.written = Written({layer.name: [] for layer in layers}, {layer.name: [] for layer in layers})
        self.records: dict[str, list[Record]] = {p.name: [] for p in parameters if codes[p.name] != EXACT}
        self._rooms: dict[str, Tensor] = {}  # by dtype
        self._layers, self._parameters, self._codes = layers, {p.name: p for p in parameters}, codes
        exact = [p for p in parameters if codes[p.name] == EXACT]
        chunks = plan_chunks(exact, steps)
        self._exact = {p.name: ChunkWriter(p, chunks[p.name], f"{folder}/{UPDATES}/{p.name}", write) for p in exact}
        self._rounded = {
            name: RecordWriter(f"{folder}/{RECORDS}/{name}", capacities[name], write) for name in self.records
        }

    def add(self, rows: Bytes, previous: Bytes) -> None:
        """Append rows (n, row bytes) of weights after each of n rows; `previous` are those before the first."""
        for name, writer in self._exact.items():
            writer.add(self._parameters[name].within(rows), self._parameters[name].within(previous))
        norms: dict[str, list[float]] = {name: [] for name in self._rounded}
        for name, found in norms.items():
            parameter = self._parameters[name]
            before = _values(parameter.within(previous), parameter)
            for bits in parameter.within(rows):
                now = _values(bits, parameter)
                found.append(self._round(parameter, torch.sub(now, before, out=self._room(parameter))))
                before = now
        for layer in self._layers:
            describe_rows(self.written, layer, self._parameters, rows, norms.get(layer.weight) or previous)

    def close(self) -> None:
        """Write what is left."""
        for exact in self._exact.values():
            exact.close()
        for rounded in self._rounded.values():
            rounded.close()

    def _room(self, parameter: Parameter) -> Tensor:
        """Return memory for an update until the next one, which stays in the processor's cache."""
        held = self._rooms.get(parameter.dtype)
        if held is None or len(held) < parameter.size:
            self._rooms[parameter.dtype] = held = torch.empty(parameter.size, dtype=getattr(torch, parameter.dtype))
        return held[: parameter.size].view(parameter.shape)

    def _round(self, parameter: Parameter, update: Tensor) -> float:
        """Append an update; return its norm."""
        encoded = encode(update, self._codes[parameter.name])
        room, place = self._rounded[parameter.name].room(encoded.nbytes)
        encoded.fill(torch.from_numpy(room))
        self.records[parameter.name].append(Record(encoded.form, place))
        return encoded.norm


def row_of(parameters: Sequence[Parameter], values: Mapping[str, Tensor], width: int) -> Bytes:
    """Return values by name as a row (row bytes,)."""
    row: Bytes = np.zeros(width, np.uint8)
    for parameter in parameters:
        flat = values[parameter.name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        row[parameter.offset : parameter.offset + parameter.nbytes] = flat
    return row


def _values(bits: Ints, parameter: Parameter) -> Tensor:
    """Return bit patterns (P,) as a weight (*shape), a view."""
    return torch.from_numpy(bits).view(getattr(torch, parameter.dtype)).view(parameter.shape)
