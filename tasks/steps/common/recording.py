"""Recording in a training stage: the updates of a segment are in the partition of its checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from configs.section import size_bytes
from configs.training import Record, Training
from storage.documents import Document
from storage.partitions import Partition
from storage.specs import StageSpec
from storage.updates.archives import Segment, kept_checkpoints
from tasks.engine.survey import Survey
from tasks.steps.common.courses import course_size, n_segments, training_of, training_steps
from tasks.steps.common.trainer import pack_training
from tasks.steps.common.trials import spread

if TYPE_CHECKING:
    from torch import nn

    from tasks.recording.segment import SegmentRecorder
    from tasks.training.loop import Trainer

UPDATES = 96 * 2**20  # bytes of updates in memory at a time, read or written: a chunk of a layer and its float copy
EXAMPLE = 64  # bytes of a ledger's row, and of each of its examples


def kept_steps(record: Record) -> Callable[[int], bool] | None:
    """Return a function that says whether a step's update is kept; None where all are."""
    spans = record.steps
    return None if spans is None else lambda step: any(start <= step < stop for start, stop in spans)


@contextmanager
def recording(
    train: Training, part: Partition, trainer: Trainer, parent: Document, span: tuple[int, int]
) -> Iterator[SegmentRecorder | None]:
    """Record the steps of the block into a partition, where the training's settings ask for it.

    The partition's numbers say afterwards what was recorded, and the first one's where the initial weights are.

    Parameters
    ----------
    parent : numbers of the segment before, whose kind of archive goes on; empty for the first, which chooses it
    span : first step, past the last
    """
    from tasks.recording.checkpoints import write_initial
    from tasks.recording.guards import print_line
    from tasks.recording.layers import choose_layers
    from tasks.recording.segment import SegmentRecorder, attempt_folder

    record = train.record
    if record is None:
        yield None
        return
    if not parent:
        part.numbers["initial"] = write_initial(part.write_addressed, pack_training(trainer))
        steps, chosen = trainer.samples.batches.per_epoch * train.epochs, choose_layers(trainer.model, record.layers)
        numbers = partial(_numbers_here, trainer, chosen)
        planned = _choose(train, chosen, steps, numbers)[0]
        kind = _tried(planned, trainer, list(chosen), min(steps, train.checkpoint_every))
        if kind != planned:
            size = _choose(train, chosen, steps, numbers, kind)[1]  # refused above the budget, which the plan kept to
            print_line(f"archive of kind {kind}: {size / 1e6:,.3g} MB without checkpoints")
    else:
        kind = parent["recording"]["kind"]
    segment = Segment(part.number, *span, attempt_folder(part.number), kind=kind)
    recorder = SegmentRecorder(
        trainer.model,
        trainer.optimizer,
        record.layers,
        segment=segment,
        write=part.write_large,
        keep=kept_steps(record),
        tolerance=record.tolerance,
    )
    try:
        yield recorder
    except BaseException:
        recorder.abandon()
        raise
    part.numbers["recording"] = recorder.close()


def _tried(kind: str, trainer: Trainer, layers: list[str], steps: int) -> str:
    """Return the kind of archive after a preflight of at most `steps` steps, where it repeats the training."""
    from tasks.recording.archives import ARCHIVES
    from tasks.recording.environment import device_of
    from tasks.recording.guards import FALLBACK, fall_back, order_changes, print_line
    from tasks.recording.preflight import STEPS, first_difference
    from tasks.recording.programs import step_row
    from tasks.steps.common.replays import TrainerRun

    if not ARCHIVES[kind].recomputes:
        return kind
    if order_changes(trainer.model, device_of(trainer.model)):
        print_line(
            f"sums over edges and nodes have another order in each run on a GPU; the archive is of kind {FALLBACK!r} "
            f"from step 0, not {kind!r}"
        )
        return FALLBACK
    run, state = TrainerRun(trainer), pack_training(trainer)
    differs = first_difference(run, state, [step_row(step) for step in range(min(steps, STEPS))], layers)
    run.load(state, "preflight")
    return kind if differs is None else fall_back(kind, differs, list(ARCHIVES), print_line)


def recorded_layers(training: StageSpec, survey: Survey) -> dict[str, nn.Module]:
    """Return the layers that a training records, of a model on the meta device.

    Raises
    ------
    ValueError : a layer that cannot be recorded
    """
    from tasks.recording.layers import choose_layers

    record = training_of(training).record
    assert record is not None, training
    try:
        return choose_layers(survey.blank(training), record.layers)
    except ValueError as error:
        raise ValueError(f"networks: record of {training.label}: {error}") from error


def archive_size(spec: StageSpec, survey: Survey, *, kind: str = "") -> tuple[str, int]:
    """Return the kind of a training's archive and its bytes, "" and 0 where it records nothing.

    Parameters
    ----------
    kind : takes the place of the config's, if given

    Raises
    ------
    ValueError : a layer that cannot be recorded, or more than `archive_budget`
    """
    if "archive" in spec.place:  # of a training elsewhere
        return str(spec.place["archive"]["kind"]), int(spec.place["archive"]["bytes"])
    train, found = training_of(spec), survey.data(spec.inputs["data"])
    if train.record is None:
        return "", 0
    steps = training_steps(spec, found.summary)[1]
    layers = recorded_layers(spec, survey)
    try:
        kind, needed = _choose(train, layers, steps, partial(_numbers_planned, spec, survey), kind)
    except ValueError as error:
        raise ValueError(f"networks: record of {spec.label}: {error}") from error
    return kind, needed + EXAMPLE * (steps + found.count(train.split) * train.epochs)


def archive_kind(spec: StageSpec, survey: Survey) -> str:
    """Return the kind of a training's archive: the one it has begun, else the planned one; errors as `archive_size`."""
    begun = survey.begun(spec)
    return archive_size(spec, survey)[0] if begun is None else str(begun["recording"]["kind"])


def dropped_bytes(spec: StageSpec, survey: Survey, kind: str, weights: int) -> int:
    """Return the bytes of the checkpoints that an archive does without at the end.

    Parameters
    ----------
    kind : of the archive, "" for a training that records nothing
    weights : bytes of the network's state
    """
    from tasks.recording.archives import ARCHIVES

    if not kind or not ARCHIVES[kind].recomputes:
        return 0
    segments = n_segments(spec, survey.data(spec.inputs["data"]).summary)
    return (segments - kept_checkpoints(segments)) * training_of(spec).optimizer.copies * weights


def archive_line(train: Training, title: str, kind: str, size: int) -> str:
    """Return a line about the archive that `auto` chose, "" for other trainings."""
    if train.record is None or train.record.kind != "auto":
        return ""
    return f"{title}: an archive of kind {kind}, {size / 1e6:,.3g} MB without checkpoints"


def reading_peak(spec: StageSpec, survey: Survey, weights: int) -> int:
    """Return the bytes that a reader of a training's archive holds besides its blocks: those of the steps it repeats.

    Parameters
    ----------
    weights : bytes of the network's state
    """
    from tasks.recording.archives import ARCHIVES

    kind, _ = archive_size(spec, survey)
    return course_size(spec, survey, weights).peak if ARCHIVES[kind].recomputes else 0


def _numbers_here(trainer: Trainer, chosen: Mapping[str, nn.Module]) -> dict[str, int]:
    """Return the numbers in a sample's inputs and outputs by layer, in a training that is about to begin."""
    from tasks.recording.factors import sample_numbers

    inputs, _ = trainer.samples.fetch(spread(len(trainer.samples.ids)))
    return sample_numbers(trainer.model, chosen, inputs if inputs.ndim == 2 else inputs[:1])


def _numbers_planned(spec: StageSpec, survey: Survey) -> dict[str, int]:
    """Return the same for a training of a config."""
    from tasks.recording.factors import sample_numbers
    from tasks.recording.layers import choose_layers

    record = training_of(spec).record
    layers = None if record is None else record.layers
    found: dict[str, int] = survey.look(
        spec,
        f"numbers in factors of {layers}",
        lambda model, example, inputs: sample_numbers(
            model, choose_layers(model, layers), inputs if inputs.ndim == 2 else example
        ),
    )
    return found


def _choose(
    train: Training, chosen: Mapping[str, nn.Module], steps: int, numbers: Callable[[], dict[str, int]], kind: str = ""
) -> tuple[str, int]:
    """Return the kind of archive of a training of `steps` steps, and its bytes; see `choose_archive`.

    Parameters
    ----------
    numbers : returns those in a sample's inputs and outputs by layer; called where the choice depends on them
    kind : takes the place of the config's, if given
    """
    from tasks.recording.archives import ARCHIVES, AUTO, Contents, choose_archive
    from tasks.recording.layers import recorded_parameters

    record = train.record
    assert record is not None, train
    kept = kept_steps(record)
    n_kept = steps if kept is None else sum(map(kept, range(steps)))
    layers, parameters, _ = recorded_parameters(chosen)
    contents = Contents(
        layers, parameters, chosen, n_kept, train.optimizer.kind, train.batches.most, None, record.tolerance
    )
    asked, budget = kind or record.kind, size_bytes(record.archive_budget)
    fits = asked == AUTO and ARCHIVES["dense"].size(contents, n_kept) <= budget
    if asked in (AUTO, "hybrid") and not fits and train.optimizer.kind == "sgd":
        contents = replace(contents, numbers=numbers())
    return choose_archive(asked, contents, budget, program=True)
