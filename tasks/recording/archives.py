"""Kinds of archive by name: what writes one, what reads it, what it takes. A new kind: one file and one entry."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from storage.updates.bits import Bytes
from storage.updates.chunks import Write
from storage.updates.parameters import Layer, Parameter
from storage.updates.writer import DenseWriter, Written
from tasks.recording.dense import DenseSource
from tasks.recording.sizes import check_budget, dense_bytes

if TYPE_CHECKING:
    from tasks.recording.sources import OpenSource

AUTO = "auto"


class UpdateWriter(Protocol):
    """Writes the updates of a segment of consecutive steps."""

    @property
    def written(self) -> Written:
        """What the ledger says of the rows."""
        ...

    def add(self, rows: Bytes, previous: Bytes) -> None:
        """Append rows (n, row bytes) of weights after each of n rows; `previous` are those before the first."""
        ...

    def close(self, start: int, stop: int) -> int:
        """Write what is left of the steps `start:stop`; return the number of rows."""
        ...

    def abandon(self) -> None:
        """Free the threads; nothing more is written."""
        ...


class OpenWriter(Protocol):
    """Begins a segment of at most `steps` steps, whose files lie below `folder`."""

    def __call__(
        self,
        layers: Sequence[Layer],
        parameters: Sequence[Parameter],
        folder: str,
        steps: int,
        write: Write,
        threads: int,
        /,
    ) -> UpdateWriter: ...


@dataclass(frozen=True)
class Archive:
    """A kind of archive.

    Attributes
    ----------
    writer : begins to write the updates of a segment of consecutive steps
    source : opens the updates of a finished stage
    size : bytes from the shapes of the recorded parameters and the number of steps
    """

    writer: OpenWriter
    source: "OpenSource"
    size: Callable[[Iterable[Sequence[int]], int], int]


ARCHIVES: dict[str, Archive] = {  # `auto` takes the first whose size fits, so the most exact kinds come first
    "dense": Archive(DenseWriter, DenseSource, dense_bytes),
}


def choose_kind(kind: str) -> str:
    """Return the kind of archive that a recorder takes where no budget is given: `auto` is the first.

    Raises
    ------
    ValueError : there is no such kind; lists what there is
    """
    if kind == AUTO:
        return next(iter(ARCHIVES))
    if kind not in ARCHIVES:
        raise ValueError(f"kind {kind!r} of archive is not there; there are {', '.join([AUTO, *ARCHIVES])}")
    return kind


def choose_archive(kind: str, shapes: Sequence[Sequence[int]], steps: int, budget: float) -> tuple[str, int]:
    """Return the kind of archive that is recorded, and the bytes that it takes without ledger and checkpoints.

    Parameters
    ----------
    kind : of an archive, or `auto` for the first that fits
    shapes : of the recorded parameters
    steps : updates that are kept
    budget : bytes

    Raises
    ------
    ValueError : nothing that is asked for fits
    """
    sizes = {name: ARCHIVES[name].size(shapes, steps) for name in (ARCHIVES if kind == AUTO else [choose_kind(kind)])}
    chosen = next((name for name, size in sizes.items() if size <= budget), min(sizes, key=sizes.__getitem__))
    check_budget(sizes[chosen], budget)
    return chosen, sizes[chosen]
