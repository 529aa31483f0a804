"""The steps of a recorded training made again, segment by segment, from its checkpoints.

Every segment must end with the recorded weights, bit for bit.
"""

from __future__ import annotations

from functools import cached_property
from math import isqrt
from typing import TYPE_CHECKING

from configs.training import Record
from storage.documents import digest
from storage.layouts import ArrayLayout, Layout
from storage.specs import StageSpec
from storage.stages import FinishedStage, open_finished
from storage.stores import Store, StoreError
from storage.updates.archives import Segment
from tasks.steps.common.chain import same_environment
from tasks.steps.common.courses import MEMORY_SAMPLES, training_of
from tasks.steps.common.recording import archive_kind
from tasks.steps.common.trainer import environment, load_training, open_trainer, pack_training

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tasks.engine.survey import Survey
    from tasks.recording.sources import UpdateSource
    from tasks.tracing.adjoint import Passed
    from tasks.tracing.optimizer_rules import State
    from tasks.training.batches import Positions
    from tasks.training.course import TrainerCourse
    from tasks.training.loop import Trainer

PARTITIONS = 16  # of a stage that goes through a training: at most so many copies of its results on the disk
STATE_BYTES = 256 * 2**20  # bytes of states in memory, unless the square root of the steps needs more
INEXACT = ("hybrid",)  # kinds of archive that round weights


def parts_layout(store: Store, spec: StageSpec, name: str, most: int = PARTITIONS) -> Layout:
    """Return the layout of sums (part, query, example) of a stage whose partitions are consecutive segments.

    Parameters
    ----------
    most : partitions, where the archive has so many segments
    """
    from tasks.steps.common.replays import open_archive
    from tasks.steps.tracing.subjects import finished_subjects

    training = spec.inputs["network"]
    partitions = min(most, PARTITIONS, len(open_archive(store, training).segments()))
    n_queries = finished_subjects(store, spec)
    counts = open_finished(store, training.inputs["data"]).summary["splits"][training_of(training).split]["counts"]
    shape = (partitions, n_queries, int(sum(counts)))
    return Layout(partitions, {name: ArrayLayout(shape, "float64", ("part", "query", "example"), 1, 1)})


class Rerun:
    """A finished, recorded training as a course of differentiable steps.

    Parameters
    ----------
    training : its spec
    key : key of the config that asks for it, for messages
    precision : dtype of states and derivatives, by name
    steps : whether steps are made again; otherwise only states of checkpoints are asked for

    Raises
    ------
    ValueError : the archive does not have the exact weights of every step, and steps are made again
    """

    def __init__(
        self, store: Store, training: StageSpec, device: torch.device, key: str, precision: str, *, steps: bool = True
    ) -> None:
        import torch

        from tasks.steps.common.replays import open_archive
        from tasks.training.course import TrainerCourse

        self._store, self._training, self._device, self._key = store, training, device, key
        self.source: UpdateSource = open_archive(store, training)
        if steps:
            check_exact(self.source, training, key)
        dtype = getattr(torch, precision)
        self._trainer = self._opened()
        twin = None
        if dtype != torch.float32:
            twin = self._opened()
            twin.model.to(dtype)
        self.course: TrainerCourse = TrainerCourse(self._trainer, twin, dtype)

    def passed(self, segment: Segment) -> Passed:
        """Run a segment from its checkpoint; the states stay in the trainer's hands.

        Raises
        ------
        StoreError : another environment, or weights after the segment that differ from the recorded ones
        """
        from tasks.tracing.adjoint import run_forward
        from tasks.training.kept import nbytes

        first, rest = self.before(segment), self.course.rest()
        n = segment.stop - segment.start
        size = min(n, max(isqrt(n - 1) + 1, STATE_BYTES // nbytes(first.tensors.values())))
        passed = run_forward(self.course, first, segment.start, segment.stop, size)
        self.course.check_rest(rest)
        if digest(pack_training(self._trainer)) != digest(self._stage.read_file(segment.after)):
            raise StoreError(
                f"{self._training.title}: expected the recorded state after step {segment.stop - 1}, found another; "
                f"run on the machine of the training, or leave `{self._key}` out"
            )
        return passed

    def before(self, segment: Segment) -> State:
        """Return the recorded state before a segment."""
        made = self._stage.markers()[segment.recorded[0].number]["numbers"]["environment"]
        same_environment(self._training, made, environment(self._device), f"leave `{self._key}` out")
        load_training(self._trainer, self._stage.read_file(segment.before))
        return self.course.state()

    def after(self, segment: Segment) -> State:
        """Return the recorded state after a segment, in any environment."""
        load_training(self._trainer, self._stage.read_file(segment.after))
        return self.course.state()

    def examples(self, picked: Positions) -> tuple[Tensor, Tensor]:
        """Return examples of the training set as the network takes them, without augmentation, and their labels."""
        return self._trainer.samples.fetch(picked)

    def _opened(self) -> Trainer:
        """Return the training at step 0."""
        return open_trainer(self._store, self._training, self._device, MEMORY_SAMPLES)

    @cached_property
    def _stage(self) -> FinishedStage:
        """Return the training."""
        return open_finished(self._store, self._training)


def check_exact(source: UpdateSource, training: StageSpec, key: str) -> None:
    """Raise ValueError unless an archive has the exact weights of every step."""
    if any(source.exactness.values()):
        raise ValueError(_refusal(training, key, f"one of kind {source.kind!r}, which rounds them"))
    if not source.recorded.all():
        raise ValueError(_refusal(training, key, f"{int((~source.recorded).sum())} steps that are not recorded"))


def check_record(training: StageSpec, survey: Survey, key: str) -> None:
    """Raise ValueError where a training's settings already rule out derivatives or exact weights of every step.

    So does its archive, where that is begun.
    """
    settings = training_of(training)
    if settings.adversary is not None and getattr(settings.batches, "detach_ghosts", False):
        place = f"networks.{training.place['network']}.train"
        raise ValueError(
            f"{key}: expected ghosts with gradients in {place}, which has an adversary, found "
            f"{place}.batches.detach_ghosts; each pass of an attack has other ghosts, which a derivative would need "
            "again; set it to false"
        )
    record = settings.record
    assert isinstance(record, Record), training
    if record.steps is not None:
        raise ValueError(_refusal(training, key, "`steps`, which leaves some out"))
    kind = archive_kind(training, survey)
    if kind not in INEXACT or (kind != record.kind and not record.tolerance):
        return  # without a tolerance the archive itself says what is exact
    if record.kind == "replay":
        why = f"kind {kind!r}, since this training does not repeat its own steps; it"
        raise ValueError(_refusal(training, key, f"{why} rounds them", "dense"))
    chosen = " (chosen by `auto`)" if record.kind == "auto" else ""
    raise ValueError(_refusal(training, key, f"kind {kind!r}{chosen}, which rounds them"))


def _refusal(training: StageSpec, key: str, found: str, kinds: str = "dense or replay") -> str:
    """Return the message about an archive without exact weights."""
    name = training.place["network"]
    return (
        f"{key}: expected an archive of {training.label} with the exact weights of every step, found {found}; set "
        f"networks.{name}.train.record.kind to {kinds}, without `steps`"
    )
