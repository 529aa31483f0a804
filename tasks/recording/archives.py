"""Kinds of archive by name: writer, reader and size. A new kind needs one file and one entry."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage.updates.parameters import Layer, Parameter
from tasks.recording.dense import DenseSource
from tasks.recording.digests import DigestWriter, digests_bytes
from tasks.recording.hybrid import HybridWriter
from tasks.recording.hybrid_size import hybrid_bytes
from tasks.recording.hybrid_source import HybridSource
from tasks.recording.replay import ReplaySource
from tasks.recording.sizes import check_budget, dense_bytes
from tasks.recording.writers import OpenWriter, dense_writer

if TYPE_CHECKING:
    from torch import nn

    from tasks.recording.sources import OpenSource

AUTO = "auto"
ASSUMED = 10_000  # steps of a training of unknown length


@dataclass(frozen=True)
class Contents:
    """What is known about an archive before step 0.

    Attributes
    ----------
    layers, parameters : the recorded ones
    modules : module of each layer by name; may be on the meta device
    steps : number of updates that are kept, None where it is unknown
    optimizer : class of the optimiser
    members : largest number of examples and ghosts of a step, 0 if it is unknown
    numbers : numbers in a sample's input and output by layer, where they are known
    tolerance : largest rounding of an update, relative to it, for kinds that round
    """

    layers: Sequence[Layer]
    parameters: Sequence[Parameter]
    modules: "Mapping[str, nn.Module]"
    steps: int | None
    optimizer: str
    members: int = 0
    numbers: Mapping[str, int] | None = None
    tolerance: float = 1e-3

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the recorded parameters."""
        return [parameter.shape for parameter in self.parameters]


@dataclass(frozen=True)
class Archive:
    """A kind of archive.

    Attributes
    ----------
    writer : begins to write the updates of a segment of consecutive steps
    source : opens the updates of a finished stage
    size : bytes of so many updates, without the checkpoints and the facts of a step that all kinds keep
    recomputes : whether its reader repeats the training, so that it needs a program
    sampled : whether changes of the weights between two steps are looked for in samples, see `Watched.changed`
    splits : whether its reader splits updates of some layers by their members
    """

    writer: OpenWriter
    source: "OpenSource"
    size: Callable[[Contents, int], int]
    recomputes: bool = False
    sampled: bool = False
    splits: bool = False


# In the order of `auto`, which takes the first that fits: the most exact kinds first, and the smallest last.
ARCHIVES: dict[str, Archive] = {
    "dense": Archive(dense_writer, DenseSource, lambda contents, steps: dense_bytes(contents.shapes, steps)),
    "hybrid": Archive(HybridWriter, HybridSource, hybrid_bytes, sampled=True, splits=True),
    "replay": Archive(
        DigestWriter,
        ReplaySource,
        lambda contents, steps: digests_bytes(len(contents.layers), steps),
        recomputes=True,
        sampled=True,
        splits=True,
    ),
}


def check_kind(kind: str) -> str:
    """Return the name of a kind of archive, or `auto`.

    Raises
    ------
    ValueError : the kind is unknown; the message lists the kinds
    """
    if kind != AUTO and kind not in ARCHIVES:
        raise ValueError(f"kind: expected one of {', '.join([AUTO, *ARCHIVES])}, found {kind!r}")
    return kind


def choose_archive(kind: str, contents: Contents, budget: float, *, program: bool) -> tuple[str, int]:
    """Return the kind of archive for a budget, and its bytes without ledger and checkpoints.

    Where the number of steps is unknown, `auto` assumes ASSUMED steps; a kind without updates of its own is then
    never the answer if there is another.

    Parameters
    ----------
    kind : kind of archive, or `auto` for the first that fits
    budget : largest number of bytes
    program : whether the training can be repeated

    Raises
    ------
    ValueError : the kind, or every kind under `auto`, exceeds the budget
    """
    if kind != AUTO:
        size = 0 if contents.steps is None else ARCHIVES[check_kind(kind)].size(contents, contents.steps)
        check_budget(size, budget)
        return kind, size
    steps = ASSUMED if contents.steps is None else contents.steps
    sizes = {name: a.size(contents, steps) for name, a in ARCHIVES.items() if program or not a.recomputes}
    chosen = next((name for name, size in sizes.items() if size <= budget), min(sizes, key=sizes.__getitem__))
    if contents.steps is None and ARCHIVES[chosen].recomputes:
        chosen = [name for name in sizes if not ARCHIVES[name].recomputes][-1]
    if contents.steps is not None:
        check_budget(sizes[chosen], budget)
    return chosen, sizes[chosen]
