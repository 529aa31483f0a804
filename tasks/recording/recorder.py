"""The recorder for any training loop, in three lines.

with UpdateRecorder(model, optimizer, "lore-of-mine") as recorder:
    for t in range(recorder.first_step, T):
        with recorder.step(ids[t], label=c) as row:
            row.loss = train_step(ids[t])
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from types import TracebackType

import torch
from torch import nn

from storage.claims import claim
from storage.layouts import Layout
from storage.partitions import Partition
from storage.specs import StageSpec
from storage.stages import begin_stage
from storage.stores import StoreError, open_store
from storage.updates.archives import STAGE, Segment, check_free, dropped_checkpoints, keep_chain, sweep_files
from storage.updates.parameters import layers_document
from tasks.recording.archives import ARCHIVES, AUTO, check_kind, choose_archive
from tasks.recording.blocks import check_one_update, check_unchanged
from tasks.recording.checkpoints import pack_checkpoint, restore_checkpoint, write_checkpoint, write_initial
from tasks.recording.environment import device_of, environment_difference, environment_facts, loop_facts
from tasks.recording.fingerprints import Fingerprints, Watched
from tasks.recording.given import Ids, given_row
from tasks.recording.guards import ReplayGuard, fall_back, print_line, say_diverged
from tasks.recording.layers import choose_layers, recorded_parameters
from tasks.recording.programs import Program, Row
from tasks.recording.segment import SegmentRecorder, attempt_folder
from tasks.recording.start import check_settings, contents_of, steps_of_a_segment

VERSION = 2
BUDGET = 20e9  # bytes of an archive that `auto` chooses, as `archive_budget` of a config


class UpdateRecorder:
    """A recorder that writes every weight update of a training into a store; a killed training can go on.

    Parameters
    ----------
    model, optimizer : in the state before step 0. If the store has an unfinished archive, they and torch's random
        generators are restored from its last checkpoint.
    store : folder or URL of a store; created if it does not exist
    kind : "dense", every update, bit for bit; "hybrid", factors or rounded updates; "replay", digests, where reading
        makes the steps again; or "auto", the first of which 10,000 updates take at most 20 GB
    layers : names of the modules to record; None for every covered one
    checkpoint_every : steps between two checkpoints, so the largest number of steps that a killed training repeats;
        None for 256 MB of updates, between 100 and 1,000 steps; for a replay 500 steps
    tolerance : largest cosine error, for kinds that round
    program : begins the training again, as `open_updates` needs it for a replay. With it a preflight before step 0
        makes the first steps twice, and compares the loop's first step with the program's.

    Raises
    ------
    TypeError : a model, optimiser, program or list of layers that is something else
    ValueError : an unknown kind or layer; what cannot be recorded: a module, sparse or meta tensors, an optimiser of
        another model or without a rate, settings or state that cannot be restored exactly; or a value out of its range
    StoreError : the archive in the store is finished; it was begun with other layers or checkpoints; or it was begun
        in another environment (`tasks.recording.environment`), where bits would differ

    Notes
    -----
    The training is bitwise that of an unrecorded run: the recorder does not draw random numbers and leaves no hooks. A
    checkpoint holds model, optimiser and torch's random generators, but not other state of the loop. For example, a
    scheduler of torch counts its own steps and would begin again at 0. Instead, set the learning rate from the step's
    index before `optimizer.step()`. Memory: that of the kind's writer (`tasks.recording.writers`).
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        store: "str | os.PathLike[str]",
        *,
        kind: str = "auto",
        layers: Sequence[str] | None = None,
        checkpoint_every: int | None = None,
        tolerance: float = 1e-3,
        program: Program | None = None,
    ) -> None:
        check_kind(kind)
        check_settings(model, optimizer, checkpoint_every, tolerance, program)
        self.waited_seconds = 0.0
        self._model, self._optimizer = model, optimizer
        self._layers = list(choose_layers(model, layers))
        self.tolerance, self.program, self._auto = tolerance, program, kind == AUTO
        self.kind, _ = choose_archive(
            kind, contents_of(model, optimizer, self._layers, tolerance), BUDGET, program=program is not None
        )
        repeats = ARCHIVES[self.kind].recomputes
        self._every = checkpoint_every or steps_of_a_segment(model, self._layers, recomputes=repeats)
        spec = self._spec()
        opened = open_store(os.fspath(store), create=True)
        with ExitStack() as held:
            # The lock of a dead process is free at once on a local disk; its claim on S3 must expire first.
            held.enter_context(claim(opened, spec.path, "a recorder", wait=not opened.local))
            check_free(opened, spec)
            self._stage = begin_stage(opened, spec, Layout(0, open_ended=True))
            self._chain = keep_chain(self._stage)
            sweep_files(self._stage, self._chain)
            self._last: Fingerprints | None = None  # of the recorded weights after the last step, None before step 0
            self.first_step = self._resume()
            self._guard = ReplayGuard(model, self._layers, program)
            self._held: ExitStack | None = held.pop_all()
        self._open: _OpenSegment | None = None
        self._broken = self._diverged = self._swaps = False

    def __enter__(self) -> "UpdateRecorder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._abandon()

    @contextmanager
    def step(self, examples: Ids, *, label: int = -1, epoch: int = 0, ghosts: Ids = ()) -> Iterator[Row]:
        """Surround forward, backward and `optimizer.step()` of exactly one update.

        For a gradient that is accumulated over micro-batches, use one block around all of them, with all their ids. A
        block may skip its update. It must then not leave a gradient for the next block.

        Parameters
        ----------
        examples : ids of the batch, or of all micro-batches, in order; at least one, int64
        label : class of all examples, -1 for several
        epoch : from 0 on
        ghosts : ids of samples that only normalisation saw

        Raises
        ------
        RuntimeError : the recorder is closed; an earlier step ended with an exception; something changed the recorded
            weights after the previous step; or the block held a part of an update, or several updates
        TypeError, ValueError : ids, a label, an epoch or the row's loss that the ledger cannot have
        Exception : a failure of the writing thread
        """
        if self._held is None:
            raise RuntimeError("recorder: expected an open one, found it closed; make a new recorder")
        self._check_sound()
        try:
            if self._open is None:
                if not self._chain:
                    self._prepare(given_row(0, examples, ghosts, label=label, epoch=epoch))
                self._open = self._begin()
            recorder, repeatable = self._open.recorder, ARCHIVES[self.kind].recomputes
            self._swaps |= check_unchanged(f"step {recorder.next_step}", recorder, self._last)
            guarded = self._guard.block(recorder.next_step) if repeatable else nullcontext()
            with recorder.step(examples, label=label, epoch=epoch, ghosts=ghosts) as row, guarded:
                yield row
                if row.calls != 1:
                    check_one_update(recorder, row.calls, self._optimizer, self._last or {})
            self._last = recorder.marks(whole=self._swaps or recorder.next_step == recorder.segment.stop)
            if repeatable and recorder.next_step == 1:
                self._guard.check_first(row, self._last)
            if recorder.next_step == recorder.segment.stop:
                self._finish()
        except BaseException:
            self._broken = True
            raise

    def close(self) -> None:
        """Write the remaining steps and finish the archive, which is then read-only.

        Raises
        ------
        StoreError : the archive would be empty
        RuntimeError : a step ended with an exception, or the recorded weights changed after the last one
        """
        if self._held is None:
            return
        try:
            self._check_sound()
            if self._open is not None:
                check_unchanged("close", self._open.recorder, self._last)
                self._finish()
            if not self._chain:
                raise StoreError(f"{self._stage.store.url}: expected a recorded step, found none; nothing is finished")
            steps = self._chain[-1]["numbers"]["recording"]["stop"]
            sweep_files(self._stage, self._chain)
            self._stage.seal({"kind": self.kind, "steps": steps, "layers": self._layers})
        finally:
            self._abandon()

    def _spec(self) -> StageSpec:
        """Return the spec that identifies the archive."""
        layers, parameters, _ = recorded_parameters(choose_layers(self._model, self._layers))
        document = layers_document(layers, parameters)
        optimizer = type(self._optimizer).__name__
        settings = {"kind": self.kind, "checkpoint_every": self._every, "optimizer": optimizer, **document}
        return StageSpec(STAGE, VERSION, settings, label=type(self._model).__name__)

    def _resume(self) -> int:
        """Restore model and optimiser from the last checkpoint; return the next step."""
        if not self._chain:
            return 0
        numbers = self._chain[-1]["numbers"]
        self.kind = numbers["recording"]["kind"]
        made, here = numbers["environment"], environment_facts(device_of(self._model))
        if (differs := environment_difference(made, here)) is not None:
            raise StoreError(
                f"{self._stage.store.url}: expected {differs} {made.get(differs)}, as in the archive's first run, "
                f"found {here[differs]}; go on in that environment, or record into another store"
            )
        file = f"{self._stage.spec.path}/files/{numbers['checkpoint']}"
        expected = self._chain[-1]["files"][numbers["checkpoint"]]
        restore_checkpoint(self._stage.store, file, expected, self._model, self._optimizer)
        _, parameters, places = recorded_parameters(choose_layers(self._model, self._layers))
        self._last = Watched(parameters, places).fingerprints()
        return int(numbers["recording"]["stop"])

    def _prepare(self, first: Row) -> None:
        """State the kind of archive before step 0, after a preflight where it repeats the training."""
        archive = ARCHIVES[self.kind]
        if self._auto:
            each = archive.size(contents_of(self._model, self._optimizer, self._layers, self.tolerance), 1)
            print_line(f"archive of kind {self.kind!r}, {each / 1e6:.3g} MB a step without checkpoints")
        if archive.recomputes:
            rates = tuple(float(group["lr"]) for group in self._optimizer.param_groups)
            differs = self._guard.preflight(self._packed(), replace(first, lrs=rates), self._every)
            if differs is not None:
                self.kind = fall_back(self.kind, differs, list(ARCHIVES), print_line)

    def _begin(self) -> "_OpenSegment":
        """Open the next segment."""
        number = len(self._chain)
        start = self._chain[-1]["numbers"]["recording"]["stop"] if self._chain else 0
        segment = Segment(number, start, start + self._every, attempt_folder(number), kind=self.kind)
        with ExitStack() as stack:
            part = stack.enter_context(self._stage.partition(number))
            if number == 0:
                part.numbers["initial"] = write_initial(part.write_addressed, self._packed())
            part.numbers["parent"] = self._chain[-1]["numbers"]["checkpoint"] if self._chain else ""
            given = self._model, self._optimizer, self._layers
            recorder = SegmentRecorder(*given, segment=segment, write=part.write_large, tolerance=self.tolerance)
            if self._last is None:
                self._last = recorder.marks()
            return _OpenSegment(recorder, part, stack.pop_all())

    def _finish(self) -> None:
        """Close the open segment; its partition record is written if all steps succeeded."""
        assert self._open is not None
        opened, self._open = self._open, None
        number = opened.part.number
        with opened.stack:
            numbers = opened.recorder.close()
            checkpoint = write_checkpoint(opened.part.write_addressed, number, self._packed())
            facts = {"environment": environment_facts(device_of(self._model)), **loop_facts(self._model)}
            opened.part.numbers.update(recording=numbers, checkpoint=checkpoint, **facts)
            if ARCHIVES[self.kind].recomputes:
                opened.part.removed += dropped_checkpoints(self._chain)
        self._diverged = self._diverged or say_diverged(opened.recorder.diverged)
        self.waited_seconds += numbers["waited_seconds"]
        record = self._stage.marker(number)
        assert record is not None, number
        self._chain.append(record)

    def _packed(self) -> bytes:
        """Return a checkpoint of the present state."""
        return pack_checkpoint(self._model, self._optimizer)

    def _check_sound(self) -> None:
        """Raise if a step or a write failed: later steps would not continue the archive."""
        if self._broken:
            raise RuntimeError("a step ended with an exception; make a new recorder, which goes on from a checkpoint")

    def _abandon(self) -> None:
        """Drop the open segment without a partition record, and release the archive."""
        if self._open is not None:
            opened, self._open = self._open, None
            opened.recorder.abandon()
            with suppress(_AbandonedError), opened.stack:
                raise _AbandonedError
        if self._held is not None:
            held, self._held = self._held, None
            held.close()


class _AbandonedError(Exception):
    """An exception that ends a partition without a partition record."""


@dataclass(frozen=True)
class _OpenSegment:
    """The open segment, its partition, and the exit of the partition."""

    recorder: SegmentRecorder
    part: Partition
    stack: ExitStack
