"""The reader of a dense segment: it restores weights bit for bit from the checkpoint before, a chunk at a time."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from storage.documents import DamagedError, Document
from storage.stages import FinishedStage
from storage.tensors import decode_tensors
from storage.updates.archives import Segment
from storage.updates.bits import BITS, Ints, add_rows, weights_digests
from storage.updates.chunks import chunking_of, read_chunk
from storage.updates.ledger import DIGEST, LEDGER, read_ledger, row_runs
from storage.updates.parameters import READ, Layer, Parameter, layers_of
from storage.updates.writer import UPDATES

MODEL = "model."  # before a parameter's name in a checkpoint
MOMENTUM = "optimizer.{}.momentum_buffer"  # of the parameter of an index


@dataclass(frozen=True)
class RestoredRows:
    """Consecutive rows of a layer.

    Parameters
    ----------
    steps : steps of the rows; one row covers all of them where `recorded` is false
    recorded : whether each row is the update of one step
    weights : (n + 1, P) bit patterns before the first row and after each
    biases : (n + 1, out), None where the layer has no bias
    """

    steps: range
    recorded: bool
    weights: Ints
    biases: Ints | None


@dataclass(frozen=True)
class SegmentReader:
    """Reads one segment of a finished stage and checks all that it reads. Holds a chunk and its restored weights."""

    stage: FinishedStage
    segment: Segment

    @cached_property
    def ledger(self) -> pd.DataFrame:
        """The ledger of the segment."""
        tables, rows = [], 0
        for table in self._tables:
            tables.append(table.assign(row=table["row"] + rows))
            rows = int(tables[-1]["row"].iloc[-1]) + 1 if len(table) else rows
        return tables[0] if len(tables) == 1 else pd.concat(tables, ignore_index=True)

    @cached_property
    def readings(self) -> list[tuple[int | None, int]]:
        """The reading that the digests of each step's row come from: bytes of a parameter, None for all; its number."""
        found: list[tuple[int | None, int]] = []
        for document, table in zip(self._documents, self._tables, strict=True):
            found += [(document.get(READ), int(row) + 1) for row in table["row"]]
        return found

    @cached_property
    def contents(self) -> tuple[dict[str, Layer], dict[str, Parameter]]:
        """The layers and the parameters, by name."""
        return layers_of(self._documents[0])

    @cached_property
    def _tables(self) -> list[pd.DataFrame]:
        """The ledgers of the segments as they were recorded."""
        names = [f"{part.folder}/{LEDGER}" for part in self.segment.recorded]
        return [read_ledger(self.stage.read_file(name), f"{self.stage.path}/files/{name}") for name in names]

    @cached_property
    def _documents(self) -> list[Document]:
        """What the segments as they were recorded say of themselves; all have the same layers."""
        names = [f"{part.folder}/{UPDATES}/zarr.json" for part in self.segment.recorded]
        return [json.loads(self.stage.read_file(name))["attributes"]["layerlore"] for name in names]

    def restored(self, layer: str, before: dict[str, Ints]) -> Iterator[RestoredRows]:
        """Yield the rows of a layer in order, at most a chunk of its weight at a time.

        Parameters
        ----------
        before : the parameters before the segment, from `read_weights`

        Raises
        ------
        DamagedError : a file is damaged, or restored weights differ from the recorded ones; names file and step
        """
        entry, parameters = self.contents[0][layer], self.contents[1]
        streams = [BitRows(self, parameters[name], before[name]) for name in entry.parameters]
        digests = dict(zip(self.ledger["step"], self.ledger[DIGEST + layer], strict=True))
        size = streams[0].chunking.rows
        for rows, steps, recorded in row_runs(self.ledger):
            for low, high in cut_rows(rows, size):
                part = range(steps[low - rows.start], steps[high - 1 - rows.start] + 1) if recorded else steps
                restored = [stream.take(high - low) for stream in streams]
                if weights_digests(values[-1:] for values in restored) != [digests[part[-1]]]:
                    folder = f"{self.stage.path}/files/{self.segment.folder}"
                    after = f"after step {part[-1]}"
                    raise DamagedError(
                        f"{folder}: layer {layer!r}: expected the recorded weights {after}, found others"
                    )
                yield RestoredRows(part, recorded, restored[0], restored[1] if len(restored) > 1 else None)


def read_weights(stage: FinishedStage, checkpoint: str, parameters: Iterable[Parameter]) -> dict[str, Ints]:
    """Return the bit patterns (P,) of parameters, by name, in a checkpoint. Reads the whole file."""
    return read_state(stage, checkpoint, parameters, {})[0]


def read_state(
    stage: FinishedStage, checkpoint: str, parameters: Iterable[Parameter], momentum: Mapping[str, int]
) -> tuple[dict[str, Ints], dict[str, Ints]]:
    """Return the bit patterns (P,) of parameters and of momentum buffers, by name, in a checkpoint.

    Parameters
    ----------
    momentum : index in the optimiser by the parameter's name; a parameter without a buffer is left out
    """
    what = f"{stage.path}/files/{checkpoint}"
    tensors, _ = decode_tensors(stage.read_file(checkpoint), what)
    weights, buffers = {}, {}
    for parameter in parameters:
        tensor = tensors.get(MODEL + parameter.name)
        if tensor is None or tensor.shape != parameter.shape:
            raise DamagedError(f"{what}: expected {parameter.name} of shape {parameter.shape}, found none")
        weights[parameter.name] = tensor.data.copy().view(BITS[parameter.dtype])
        buffer = tensors.get(MOMENTUM.format(momentum.get(parameter.name, -1)))
        if buffer is not None:
            buffers[parameter.name] = buffer.data.copy().view(BITS[parameter.dtype])
    return weights, buffers


class BitRows:
    """The rows in order of a parameter that is kept bit for bit; holds one chunk of differences."""

    def __init__(self, reader: SegmentReader, parameter: Parameter, before: Ints) -> None:
        self._store, self._parameter, self._last = reader.stage.store, parameter, before
        folder = f"{reader.segment.folder}/{UPDATES}/{parameter.name}"
        self._path = f"{reader.stage.path}/files/{folder}"
        self.chunking = chunking_of(reader.stage.read_file(f"{folder}/zarr.json"))
        self._next, self._chunk = 0, -1
        self._differences = np.empty((0, parameter.size), before.dtype)

    def take(self, count: int) -> Ints:
        """Return the last values and the next `count` rows, (count + 1, P)."""
        parts = []
        while count:
            index, low = divmod(self._next, self.chunking.rows)
            if index != self._chunk:
                self._differences = read_chunk(self._store, self._path, self._parameter, index, self.chunking)
                self._chunk = index
            parts.append(self._differences[low : low + count])
            self._next, count = self._next + len(parts[-1]), count - len(parts[-1])
        rows = add_rows(self._last, parts[0] if len(parts) == 1 else np.concatenate(parts))
        self._last = rows[-1].copy()
        return rows


def cut_rows(rows: range, size: int) -> Iterator[tuple[int, int]]:
    """Yield the parts of a range of rows between the ends of chunks of `size` rows."""
    low = rows.start
    while low < rows.stop:
        high = min(rows.stop, (low // size + 1) * size)
        yield low, high
        low = high
