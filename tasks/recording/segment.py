"""The recorder of one segment of consecutive steps, for training stages and for `UpdateRecorder`."""

import uuid
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from storage.checksums import Write
from storage.documents import Document
from storage.updates.archives import Segment
from storage.updates.ledger import LEDGER, Entry, first_not_finite, ledger_bytes
from storage.updates.parameters import shown_layer
from tasks.recording.archives import ARCHIVES
from tasks.recording.environment import spare_threads
from tasks.recording.fingerprints import Fingerprints, Watched
from tasks.recording.given import Ids, given_row, ids_of, number_of
from tasks.recording.layers import choose_layers, recorded_parameters
from tasks.recording.programs import Row
from tasks.recording.writers import Recording

Keep = Callable[[int], bool]  # step -> whether its update is kept


def attempt_folder(number: int) -> str:
    """Return the name of a new folder for an attempt at segment `number`."""
    return f"segment-{number:06d}-{uuid.uuid4().hex[:8]}"


class SegmentRecorder:
    """A recorder of the updates `segment.start:segment.stop` of a training, in the folder of a segment.

    Parameters
    ----------
    model, optimizer : in the state before the segment's first step
    layers : module names; None for every covered module
    segment : number and steps, a folder from `attempt_folder`, and the kind of archive, "" for dense
    write : writes a file below the stage's files: `Partition.write_file`; called from another thread
    keep : steps whose update is kept; None for all. Steps that are not kept make one row together until the next
    tolerance : largest cosine error, for kinds that round

    Notes
    -----
    Nothing of the training is changed: no random number is drawn, no hook stays. Memory: see the kind's writer.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        layers: Sequence[str] | None,
        *,
        segment: Segment,
        write: Write,
        keep: Keep | None = None,
        tolerance: float = 1e-3,
    ) -> None:
        self.segment, self.next_step = segment, segment.start
        self._optimizer, self._keep = optimizer, keep or (lambda _: True)
        self._sizes: dict[str, int] = {}
        self._write = counted_writes(write, self._sizes)
        self._entries: list[Entry] = []
        self._failed: int | None = None
        self.diverged: tuple[int, str] | None = None  # after `close`: first step and layer with an update not finite
        self.kind = segment.kind or next(iter(ARCHIVES))
        self.layers, self.parameters, places = recorded_parameters(choose_layers(model, layers))
        self._watched = Watched(self.parameters, places)
        self._writer = ARCHIVES[self.kind].writer(
            Recording(
                model,
                optimizer,
                self.layers,
                self.parameters,
                places,
                segment,
                self._write,
                spare_threads(model),
                tolerance,
            )
        )
        self._pushed = 0  # number of rows; a gap is pushed at its end
        self._in_gap = False
        self._finalizer = weakref.finalize(self, self._writer.abandon)

    @property
    def waited_seconds(self) -> float:
        """Return the time that the training waited for the writing thread."""
        return self._writer.waited_seconds

    def marks(self, *, whole: bool = False) -> Fingerprints:
        """Return the fingerprints of the weights directly after a step.

        Parameters
        ----------
        whole : read every block, where a loop may change weights: between two segments, or once it did
        """
        return self._watched.fingerprints() if whole else self._writer.marks()

    def touched(self, before: Fingerprints) -> bool:
        """Return whether torch saw a recorded parameter change since `before`."""
        return self._watched.touched(before)

    def changed(self, before: Fingerprints, *, strict: bool = False) -> str | None:
        """Return the name of a recorded parameter that differs from before, None without one.

        Every bit is compared, except for a kind that looks at samples: there see `Watched.changed`.
        """
        strict = strict or not ARCHIVES[self.kind].sampled
        return self._watched.changed(before, strict=strict)

    @contextmanager
    def step(self, examples: Ids, *, label: int = -1, epoch: int = 0, ghosts: Ids = ()) -> Iterator[Row]:
        """Surround exactly one update: forward, backward and `optimizer.step()`.

        Parameters
        ----------
        examples, ghosts : ids in the order of the batch; a block that learns of more sets those of its row
        label : class of all examples, -1 for several

        Raises
        ------
        RuntimeError : an earlier step ended with an exception, or the segment is full
        TypeError, ValueError : ids, label, epoch, or the row's loss or clip, that the ledger cannot have
        Exception : a failure of the writing thread
        """
        self._check()
        kept = self._keep(self.next_step)
        if kept and self._in_gap:
            self._end_row()
        row = given_row(self.next_step, examples, ghosts, label=label, epoch=epoch)
        members = len(row.examples) + len(row.ghosts)
        try:
            with _watched(self._optimizer, row), self._writer.during(members, kept=kept):
                yield row
        except BaseException:
            self._failed = self.next_step
            raise
        entry = Entry(
            step=self.next_step,
            row=self._pushed,
            recorded=kept,
            epoch=row.epoch,
            label=row.label,
            lrs=row.lrs,
            clip=number_of("row.clip", row.clip),
            loss=number_of("row.loss", row.loss),
            augmentation=int(row.augmentation),
            examples=ids_of("examples", row.examples, least=1),
            ghosts=ids_of("ghosts", row.ghosts),
        )
        self._entries.append(entry)
        self._in_gap = not kept
        if kept:
            self._end_row()
        self.next_step += 1

    def close(self) -> Document:
        """Write the remaining rows; return the segment's metrics, for `recording` in the partition record.

        Returns
        -------
        kind, folder, start, stop, rows, bytes, files, waited_seconds

        Raises
        ------
        RuntimeError : a step ended with an exception
        Exception : a failure of the writing thread
        """
        self._check(full=False)
        if self._in_gap:
            self._end_row()
        rows = self._writer.close(self.segment.start, self.next_step)
        written = self._writer.written
        if (odd := first_not_finite({layer.name: written.norms[layer.name] for layer in self.layers})) is not None:
            self.diverged = max(entry.step for entry in self._entries if entry.row == odd[0]), odd[1]
        self._write(f"{self.segment.folder}/{LEDGER}", ledger_bytes(self._entries, written))
        self._finalizer.detach()
        return {
            "kind": self.kind,
            "folder": self.segment.folder,
            "start": self.segment.start,
            "stop": self.next_step,
            "rows": rows,
            "bytes": sum(self._sizes.values()),
            "files": len(self._sizes),
            "waited_seconds": self.waited_seconds,
        }

    def abandon(self) -> None:
        """Stop the recording: after the return nothing more is written."""
        self._finalizer()
        self._writer.join()

    def _end_row(self) -> None:
        """Record the weights after a step, or after a gap."""
        if (other := self._watched.reshaped()) is not None:
            parameter, value = other
            found = f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
            raise RuntimeError(
                f"step {self.next_step}: layer {shown_layer(self.layer_of(parameter.name))!r}: expected "
                f"{parameter.name!r} as {parameter.dtype} of shape {parameter.shape}, found {found}; keep shapes and "
                "types, or record the changed network into another store"
            )
        self._writer.push()
        self._pushed, self._in_gap = self._pushed + 1, False

    def layer_of(self, parameter: str) -> str:
        """Return the first layer that has a parameter."""
        return next(layer.name for layer in self.layers if parameter in layer.parameters)

    def _check(self, *, full: bool = True) -> None:
        """Raise RuntimeError unless another step may be recorded."""
        self._writer.check()
        if self._failed is not None:
            raise RuntimeError(
                f"step {self._failed} ended with an exception and may have changed the weights; "
                "make a new recorder, which goes on from the last checkpoint"
            )
        if full and self.next_step >= self.segment.stop:
            raise RuntimeError(f"segment {self.segment.number} ends before step {self.next_step}; close it")


@contextmanager
def _watched(optimizer: torch.optim.Optimizer, row: Row) -> Iterator[None]:
    """Count the calls of `optimizer.step`, and record its learning rates: a scheduler may change them in the block."""
    depth = 0  # the step of a derived optimiser may call its parent's, which is not a call of the loop

    def note() -> None:
        row.lrs = tuple(float(group["lr"]) for group in optimizer.param_groups)

    def enter(*_: object) -> None:
        nonlocal depth
        row.calls += depth == 0
        depth += 1
        note()

    def leave(*_: object) -> None:
        nonlocal depth
        depth -= 1

    handles = optimizer.register_step_pre_hook(enter), optimizer.register_step_post_hook(leave)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    if not row.lrs:
        note()


def counted_writes(write: Write, sizes: dict[str, int]) -> Write:
    """Return `write` with a record of the size of every file."""

    def counted(name: str, data: bytes | memoryview, *, checked: bool = False) -> None:
        write(name, data, checked=checked)
        sizes[name] = len(data)

    return counted
