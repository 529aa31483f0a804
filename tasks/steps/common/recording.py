"""Recording in a training stage: the updates of a segment are in the partition of its checkpoint."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn

from configs.section import size_bytes
from configs.training import Record, Training
from storage.partitions import Partition
from storage.specs import StageSpec
from storage.updates.archives import Segment
from tasks.engine.survey import Survey
from tasks.recording.archives import choose_archive, choose_kind
from tasks.recording.checkpoints import write_initial
from tasks.recording.layers import choose_layers, recorded_parameters
from tasks.recording.segment import SegmentRecorder, attempt_folder
from tasks.steps.common.courses import training_of, training_steps
from tasks.steps.common.trainer import pack_training
from tasks.training.loop import Trainer

UPDATES = 96 * 2**20  # bytes of updates in memory at a time, read or written: a chunk of a layer and its float copy
EXAMPLE = 64  # bytes of a ledger's row, and of each of its examples


def kept_steps(record: Record) -> Callable[[int], bool] | None:
    """Return a function that says whether a step's update is kept; None where all are."""
    spans = record.steps
    return None if spans is None else lambda step: any(start <= step < stop for start, stop in spans)


@contextmanager
def recording(
    train: Training, part: Partition, trainer: Trainer, start: int, stop: int
) -> Iterator[SegmentRecorder | None]:
    """Record the steps `start:stop` of the block into a partition, where the training has `record`.

    The partition's metrics then describe the recording; those of the first partition also name the initial weights.
    """
    record = train.record
    if record is None:
        yield None
        return
    choose_kind(record.kind)
    if start == 0:
        part.numbers["initial"] = write_initial(part.write_file, pack_training(trainer))
    segment = Segment(part.number, start, stop, attempt_folder(part.number))
    recorder = SegmentRecorder(
        trainer.model,
        trainer.optimizer,
        record.layers,
        segment=segment,
        write=part.write_file,
        keep=kept_steps(record),
    )
    try:
        yield recorder
    except BaseException:
        recorder.abandon()
        raise
    part.numbers["recording"] = recorder.close()


def recorded_layers(training: StageSpec, survey: Survey) -> dict[str, nn.Module]:
    """Return the layers that a training records, of a model on the meta device.

    Raises
    ------
    ValueError : a layer that cannot be recorded
    """
    record = training_of(training).record
    assert record is not None, training
    try:
        return choose_layers(survey.blank(training), record.layers)
    except ValueError as error:
        raise ValueError(f"networks: record of {training.label}: {error}") from error


def archive_bytes(spec: StageSpec, survey: Survey) -> int:
    """Return the bytes of a training's archive, 0 where it records nothing.

    Raises
    ------
    ValueError : a layer that cannot be recorded, or more than `archive_budget`
    """
    train, found = training_of(spec), survey.data(spec.inputs["data"])
    if train.record is None:
        return 0
    steps, kept = training_steps(spec, found.summary)[1], kept_steps(train.record)
    _, parameters, _ = recorded_parameters(recorded_layers(spec, survey))
    try:
        _, needed = choose_archive(
            train.record.kind,
            [parameter.shape for parameter in parameters],
            steps if kept is None else sum(map(kept, range(steps))),
            size_bytes(train.record.archive_budget),
        )
    except ValueError as error:
        raise ValueError(f"networks: record of {spec.label}: {error}") from error
    return needed + EXAMPLE * (steps + found.count(train.split) * train.epochs)
