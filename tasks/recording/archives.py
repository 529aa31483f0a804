"""Kinds of archive by name: writer, reader and size. A new kind needs one file and one entry."""

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
    size : number of bytes, from the shapes of the recorded parameters and the number of steps
    """

    writer: OpenWriter
    source: "OpenSource"
    size: Callable[[Iterable[Sequence[int]], int], int]


ARCHIVES: dict[str, Archive] = {  # `auto` takes the first kind that fits, so the most exact kinds come first
    "dense": Archive(DenseWriter, DenseSource, dense_bytes),
}


def choose_kind(kind: str) -> str:
    """Return the kind of archive of a recorder without a budget: `auto` is the first kind.

    Raises
    ------
    ValueError : the kind is unknown; the message lists the kinds
    """
    if kind == AUTO:
        return next(iter(ARCHIVES))
    if kind not in ARCHIVES:
        raise ValueError(f"kind: expected one of {', '.join([AUTO, *ARCHIVES])}, found {kind!r}")
    return kind


def choose_archive(kind: str, shapes: Sequence[Sequence[int]], steps: int, budget: float) -> tuple[str, int]:
    """Return the kind of archive for a budget, and its bytes without ledger and checkpoints.

    Parameters
    ----------
    kind : kind of archive, or `auto` for the first that fits
    shapes : shapes of the recorded parameters
    steps : number of updates that are kept
    budget : largest number of bytes

    Raises
    ------
    ValueError : the kind, or every kind under `auto`, exceeds the budget
    """
    sizes = {name: ARCHIVES[name].size(shapes, steps) for name in (ARCHIVES if kind == AUTO else [choose_kind(kind)])}
    chosen = next((name for name, size in sizes.items() if size <= budget), min(sizes, key=sizes.__getitem__))
    check_budget(sizes[chosen], budget)
    return chosen, sizes[chosen]
