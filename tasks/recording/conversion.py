"""The conversion of an archive into another kind, segment by segment: its steps are recorded once more.

A replay makes the training's own steps again, so that a writer sees what it would have seen at the training. A dense
archive gives the weights after each step, from which a writer rounds updates; it has no factors.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import pandas as pd
import torch
from torch import Tensor, nn

from storage.checksums import Write
from storage.claims import claim
from storage.documents import DamagedError, Document
from storage.layouts import Layout
from storage.partitions import Partition
from storage.specs import StageSpec
from storage.stages import FinishedStage, begin_stage, find_finished
from storage.stores import Store, StoreError, open_store
from storage.updates.archives import CONVERTED, Segment
from storage.updates.facts import closed_archive
from storage.updates.ledger import LEDGER, Entry, ledger_bytes
from storage.updates.parameters import Layer, Parameter
from storage.updates.reader import SegmentReader
from tasks.recording.archives import ARCHIVES
from tasks.recording.dense import DenseSource
from tasks.recording.environment import spare_threads
from tasks.recording.guards import diverged_layer, print_line
from tasks.recording.layers import recorded_parameters
from tasks.recording.programs import Program
from tasks.recording.replay import ReplaySource
from tasks.recording.replaying import row_ends
from tasks.recording.segment import attempt_folder, counted_writes
from tasks.recording.sources import UpdateSource, update_source
from tasks.recording.writers import Place, Recording

KINDS = "dense", "hybrid"  # that an archive can be converted into
ROUNDING = 1e-6  # of the weights in a step, next to the stated error of updates
CHAIN = "environment", "code", "data"  # metrics of a segment that are facts about the training
VERSION = 1
Say = Callable[[str], None]


class Walk(Protocol):
    """A recorded training that goes through a segment once more."""

    @property
    def model(self) -> nn.Module: ...

    @property
    def optimizer(self) -> torch.optim.Optimizer: ...

    @property
    def layers(self) -> Sequence[Layer]: ...

    @property
    def parameters(self) -> Sequence[Parameter]: ...

    @property
    def places(self) -> Sequence[Place]: ...

    def advance(self, *, ends: bool) -> None:
        """Make the next step; `ends` says whether a row ends with it."""
        ...


def check_convertible(source: UpdateSource, kind: str) -> None:
    """Raise ValueError unless an archive can be converted into a kind."""
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, found {kind!r}")
    if source.kind not in ("replay", "dense"):
        raise ValueError(
            f"kind: expected an archive of kind replay or dense, which have every bit, found {source.kind}; "
            "record the training again to have another kind"
        )
    if isinstance(source, ReplaySource):
        source.repeat()  # raises without a program


def convert_segment(source: UpdateSource, segment: Segment, kind: str, write: Write, tolerance: float) -> Document:
    """Record a segment of an archive as another kind; return the metrics of `SegmentRecorder.close`.

    Parameters
    ----------
    write : writes a file below the new stage's files
    tolerance : largest cosine error, for kinds that round

    Raises
    ------
    ReplayMismatch : a repeated step has other weights than recorded
    DamagedError : a file of the archive differs from what was written
    """
    assert isinstance(source, DenseSource), source.kind
    walk: Walk = _Replayed(source, segment) if isinstance(source, ReplaySource) else _Restored(source, segment)
    ledger, sizes = SegmentReader(source.stage, segment).ledger, dict[str, int]()

    counted = counted_writes(write, sizes)
    made = replace(segment, folder=attempt_folder(segment.number), kind=kind, parts=())
    parts = walk.layers, walk.parameters, walk.places, made, counted, spare_threads(walk.model), tolerance
    writer = ARCHIVES[kind].writer(Recording(walk.model, walk.optimizer, *parts, packed=True))
    try:
        entries = list(_entries(ledger))
        for entry, ends in zip(entries, row_ends(ledger), strict=True):
            with writer.during(len(entry.examples) + len(entry.ghosts), kept=entry.recorded):
                walk.advance(ends=ends)
            if ends:
                writer.push()
        rows = writer.close(segment.start, segment.stop)
    except BaseException:
        writer.abandon()
        writer.join()
        raise
    counted(f"{made.folder}/{LEDGER}", ledger_bytes(entries, writer.written))
    facts = {"kind": kind, "folder": made.folder, "start": segment.start, "stop": segment.stop, "rows": rows}
    return {**facts, "bytes": sum(sizes.values()), "files": len(sizes), "waited_seconds": writer.waited_seconds}


def write_converted(part: Partition, source: UpdateSource, kind: str, tolerance: float) -> None:
    """Write a segment of an archive as another kind, with the checkpoints before and after it; read it back.

    Parameters and errors are those of `convert_segment` and `check_converted`.
    """
    assert isinstance(source, DenseSource), source.kind
    segment = source.segments()[part.number]
    for name in (segment.before, segment.after):
        part.write_file(name, source.stage.read_file(name))
    recording = convert_segment(source, segment, kind, part.write_large, tolerance)
    numbers = source.stage.markers()[segment.recorded[0].number]["numbers"]
    part.numbers.update({key: numbers[key] for key in CHAIN if key in numbers})
    first = part.number == 0
    part.numbers.update(parent="" if first else segment.before, checkpoint=segment.after, recording=recording)
    if first:
        part.numbers["initial"] = segment.before
    written = FinishedStage(part.stage.store, part.stage.spec.path, {"files": part.files})
    check_converted(written, replace(segment, number=0, folder=recording["folder"], kind=kind, parts=()))


def conversion_summary(source: UpdateSource, archive: str, kind: str) -> Document:
    """Return the summary of a finished conversion of the archive at a path."""
    return {"archive": archive, "kind": kind, "steps": source.steps, "layers": source.layers}


def materialise(
    url: str, kind: str, *, program: Program | None = None, tolerance: float = 1e-3, say: Say = print_line
) -> str:
    """Convert the finished archive of an `UpdateRecorder` into another kind, in the same store; return its path there.

    A conversion that was broken off goes on. `open_updates(url)` reads it where no program is given.

    Parameters
    ----------
    kind : "dense", compressed and bit for bit, or "hybrid"
    program : repeats the training, for a replay archive
    tolerance : largest cosine error of a hybrid archive

    Raises
    ------
    ValueError : an archive that cannot be converted into the kind
    StoreError : there is no finished archive, or the conversion is finished already
    ReplayMismatch : a repeated step has other weights than recorded
    """
    store = open_store(url)
    archive = closed_archive(store)
    source = update_source(archive, program=program)
    check_convertible(source, kind)
    settings = {"archive": archive.path, **conversion_settings(kind, tolerance)}
    spec = StageSpec(CONVERTED, VERSION, settings, label=archive.path)
    with claim(store, spec.path, "a conversion", wait=not store.local):
        check_unconverted(store, spec)
        stage = begin_stage(store, spec, Layout(len(source.segments())))
        for number in stage.missing():
            say(f"segment {number + 1} of {stage.layout.partitions}")
            with stage.partition(number) as part:
                write_converted(part, source, kind, tolerance)
        stage.seal(conversion_summary(source, archive.path, kind))
    return spec.path


def conversion_settings(kind: str, tolerance: float) -> Document:
    """Return the settings that a conversion depends on."""
    return {"kind": kind} | ({"tolerance": tolerance} if kind == "hybrid" else {})


def check_unconverted(store: Store, spec: StageSpec) -> None:
    """Raise StoreError where a conversion is finished already."""
    if find_finished(store, spec.path) is not None:
        raise StoreError(
            f"{spec.path}: expected no finished conversion of {spec.label}, found one; read it, or remove its folder"
        )


def check_converted(stage: FinishedStage, segment: Segment) -> None:
    """Read a converted segment back by itself, and compare it with the digests and with the checkpoint after it.

    Raises
    ------
    ValueError : the weights are not finite: the training diverged
    DamagedError : the sum of a layer's updates differs from the change of its weights by more than is stated
    """
    source = ARCHIVES[segment.kind].source(stage, (segment,), None)
    for layer in source.layers:
        change = source.final(layer).double() - source.initial(layer).double()
        total, size = torch.zeros_like(change), 0.0
        for block in source.blocks(segment, [layer]):
            updates = block.dense(torch.float64)
            total += updates.sum(dim=0)
            size += float(updates.flatten(1).norm(dim=1).sum())
        if not change.isfinite().all():
            raise ValueError(diverged_layer(source.ledger, layer))
        exact, weights = source.exactness[layer], float(source.final(layer).double().norm())
        rounding = ROUNDING * math.sqrt(segment.stop - segment.start) if exact else 1e-12
        allowed = exact * size + rounding * weights
        if not float((total - change).norm()) <= allowed:
            raise DamagedError(
                f"{stage.path}/files/{segment.folder}: layer {layer!r}: expected updates that sum to the change of its "
                f"weights within {allowed:.2g}, found {float((total - change).norm()):.2g}; convert the archive again"
            )


class _Replayed:
    """The training of a replay archive."""

    def __init__(self, source: ReplaySource, segment: Segment) -> None:
        self._replay = source.replay(segment)
        self.model, self.optimizer = self._replay.run.model, self._replay.run.optimizer
        self.layers, self.parameters, self.places = recorded_parameters(self._replay.modules)

    def advance(self, *, ends: bool) -> None:
        """Make the next step again."""
        self._replay.advance()


class _Restored:
    """Stand-ins for the parameters of a dense archive, which take the recorded weights row by row."""

    def __init__(self, source: DenseSource, segment: Segment) -> None:
        layers, parameters = SegmentReader(source.stage, segment).contents
        self.layers, self.parameters = list(layers.values()), list(parameters.values())
        self._streams = {layer.name: _rows(source, segment, layer) for layer in self.layers}
        self._held = {p.name: nn.Parameter(torch.empty(0), requires_grad=False) for p in self.parameters}
        self.model, self.places = nn.ModuleList(), list[Place]()
        for value in self._held.values():
            holder = nn.Module()
            holder.value = value
            self.model.append(holder)
            self.places.append((holder, "value"))
        self.optimizer: torch.optim.Optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))])  # has no factors
        self._take()

    def advance(self, *, ends: bool) -> None:
        """Take the weights after the next row."""
        if ends:
            self._take()

    def _take(self) -> None:
        """Take the next weights of every layer; those before the first row come first."""
        for stream in self._streams.values():
            for name, value in next(stream).items():
                self._held[name].data = value


def _rows(source: DenseSource, segment: Segment, layer: Layer) -> Iterator[dict[str, Tensor]]:
    """Yield the parameters of a layer before a segment, and after each of its rows."""
    first = True
    for block in source.blocks(segment, [layer.name]):
        weights, biases = block.weights, block.biases
        for row in range(0 if first else 1, len(weights)):
            found = {layer.weight: weights[row].clone()}
            if layer.bias is not None and biases is not None:
                found[layer.bias] = biases[row].clone()
            yield found
        first = False


def _entries(ledger: pd.DataFrame) -> Iterator[Entry]:
    """Yield the facts about each step of a ledger, rows counted from 0."""
    columns: Any = ledger.to_dict("records")  # Any: cells
    for cells in columns:
        yield Entry(
            step=int(cells["step"]),
            row=int(cells["row"]),
            recorded=bool(cells["recorded"]),
            epoch=int(cells["epoch"]),
            label=int(cells["label"]),
            lrs=tuple(map(float, cells["lrs"])),
            clip=float(cells["clip"]),
            loss=float(cells["loss"]),
            augmentation=int(cells["augmentation"]),
            examples=cells["examples"],
            ghosts=cells["ghosts"],
        )
