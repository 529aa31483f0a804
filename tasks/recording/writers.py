"""What every kind of archive does while a training runs: the protocol of its writer, and the one that stages rows."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from storage.checksums import Bytes, Write
from storage.updates.archives import Segment
from storage.updates.parameters import Layer, Parameter
from storage.updates.writer import DenseWriter, Written
from tasks.recording.fingerprints import Fingerprints, Watched
from tasks.recording.staging import StagedRows

Place = tuple[nn.Module, str]  # module and attribute of a parameter


@dataclass(frozen=True)
class Recording:
    """What a writer of a segment gets.

    Parameters
    ----------
    model, optimizer : in the state before the segment's first step
    layers, parameters, places : from `tasks.recording.layers.recorded_parameters`
    segment : number, steps (at most `stop`) and folder of the segment
    write : writes a file below the stage's files; may be called from another thread
    threads : number of threads that may write while the training runs
    tolerance : largest cosine error, for kinds that round
    packed : whether a kind that keeps every bit compresses, for which a training does not wait
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    layers: Sequence[Layer]
    parameters: Sequence[Parameter]
    places: Sequence[Place]
    segment: Segment
    write: Write
    threads: int = 1
    tolerance: float = 1e-3
    packed: bool = False


class UpdateWriter(Protocol):
    """A writer of a segment of consecutive steps."""

    @property
    def written(self) -> Written:
        """The values of the rows for the ledger."""
        ...

    @property
    def waited_seconds(self) -> float:
        """The time that the training waited for another thread."""
        ...

    def marks(self) -> Fingerprints:
        """Return the fingerprints of the weights directly after a row."""
        ...

    def during(self, members: int, *, kept: bool) -> AbstractContextManager[None]:
        """Surround one update of the training, of so many examples and ghosts; no hook stays after it."""
        ...

    def push(self) -> None:
        """Append a row: the present weights, after a step that is kept or after a gap."""
        ...

    def check(self) -> None:
        """Raise the failure of another thread, if any."""
        ...

    def close(self, start: int, stop: int) -> int:
        """Write what is left of the steps `start:stop`; return the number of rows."""
        ...

    def abandon(self) -> None:
        """Let the threads end; files that are not begun are not written."""
        ...

    def join(self) -> None:
        """Wait, after `abandon`, until no more is written."""
        ...


class RowWriter(Protocol):
    """Writes the rows of a segment in another thread."""

    @property
    def written(self) -> Written: ...

    def add(self, rows: Bytes, previous: Bytes) -> None:
        """Append rows (n, row bytes) of weights after each of n rows; `previous` are those before the first."""
        ...

    def close(self, start: int, stop: int) -> int: ...

    def abandon(self) -> None: ...


class StagedWriter:
    """A writer that copies all weights after each row, and writes them in another thread.

    Memory: four blocks of 8 MB or of the recorded weights, these weights once more, and that of the row writer.
    """

    def __init__(self, recording: Recording, rows: RowWriter) -> None:
        steps = recording.segment.stop - recording.segment.start
        self._writer = rows
        self._rows = StagedRows(recording.parameters, recording.places, steps, rows.add)
        self._watched = Watched(recording.parameters, recording.places)

    @property
    def written(self) -> Written:
        """Return the norms and digests of the rows."""
        return self._writer.written

    @property
    def waited_seconds(self) -> float:
        """Return the time that the training waited for the writing thread."""
        return self._rows.waited_seconds

    def marks(self) -> Fingerprints:
        """Return the fingerprints of the present weights."""
        return self._watched.fingerprints()

    def during(self, members: int, *, kept: bool) -> AbstractContextManager[None]:
        """Surround an update, without a hook."""
        return nullcontext()

    def push(self) -> None:
        """Append the present weights."""
        self._rows.push()

    def check(self) -> None:
        """Raise the failure of the writing thread, if any."""
        self._rows.check()

    def close(self, start: int, stop: int) -> int:
        """Write the remaining rows; return the number of all rows."""
        self._rows.close()
        return self._writer.close(start, stop)

    def abandon(self) -> None:
        """Let the threads end."""
        self._rows.abandon()
        self._writer.abandon()

    def join(self) -> None:
        """Wait until the writing thread ends."""
        self._rows.join()


def dense_writer(recording: Recording) -> StagedWriter:
    """Begin a segment of an archive of every update."""
    segment = recording.segment
    steps = segment.stop - segment.start
    rows = DenseWriter(
        recording.layers,
        recording.parameters,
        segment.folder,
        steps,
        recording.write,
        recording.threads,
        packed=recording.packed,
    )
    return StagedWriter(recording, rows)


OpenWriter = Callable[[Recording], UpdateWriter]
