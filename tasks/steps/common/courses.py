"""The settings of a training, read from its spec, and the batches, schedules and sizes that follow from them."""

from functools import partial

import numpy as np

from configs.section import Section
from configs.training import Course, Training
from storage.documents import Document
from storage.specs import StageSpec
from tasks.engine.step import Size
from tasks.engine.survey import Survey
from tasks.training.batches import Batches, Positions
from tasks.training.samplers import SAMPLERS
from tasks.training.schedules import SCHEDULES, Schedule, Span

MEMORY_SAMPLES = 256 * 2**20  # bytes of preprocessed inputs that a worker keeps between steps
CURVES = "epochs.parquet"
# Not in the key: a name, which the input manifest replaces; other stages; a path, which its digest replaces.
NO_RESULT = ("data", "snapshots", "start", "lottery")
# Nor these settings of companions, in place of which the inputs are in the key.
AS_INPUTS = {"diversity": {"words", "image_text"}, "record": {"archive_budget"}}
LOSS_ONLY = {"ghost_norm", "detach_ghosts"}  # settings of batches that samplers do not take


def training_of(spec: StageSpec) -> Training:
    """Return the settings of a training, or of any stage that trains."""
    return Training.model_validate(spec.place["train"])


def key_settings(train: Training) -> Document:
    """Return the settings that determine the result, without those equal to their default."""
    full, found = train.model_dump(mode="json"), {}
    for name, field in Training.model_fields.items():
        value = getattr(train, name)
        if name in NO_RESULT or (not field.is_required() and value == field.get_default()):
            continue
        if not isinstance(value, Section):
            found[name] = full[name]
            continue
        found[name] = value.model_dump(mode="json", exclude_defaults=True, exclude=AS_INPUTS.get(name))
        if "kind" in full[name]:
            found[name]["kind"] = full[name]["kind"]
    return found


def training_steps(spec: StageSpec, summary: Document) -> tuple[int, int]:
    """Return the steps of an epoch and of the whole training.

    Parameters
    ----------
    summary : summary of the manifest of the training's data

    Raises
    ------
    ValueError : the batches do not fit the data
    """
    train = training_of(spec)
    if "archive" in spec.place:  # of a training elsewhere, whose epochs may differ in length
        steps = int(spec.place["archive"]["steps"])
        return -(-steps // train.epochs), steps
    labels = labels_of(summary["splits"][train.split])
    per_epoch = open_batches(train, labels, int(spec.parameters["seed"])).per_epoch
    return per_epoch, per_epoch * train.epochs


def labels_of(split: Document) -> Positions:
    """Return the label at each position of a split, (n,) int64, from its labels and counts, without a table."""
    return np.repeat(np.array(split["labels"], np.int64), split["counts"])  # positions are class-major


def open_batches(train: Course, labels: Positions, seed: int) -> Batches:
    """Return the batches of samples with `labels` (n,)."""
    settings = train.batches.model_dump(exclude={"kind", *LOSS_ONLY})
    return SAMPLERS[train.batches.kind](labels, seed, **settings)


def open_schedule(train: Course, per_epoch: int) -> Schedule | None:
    """Return the schedule of a training, None for a constant learning rate."""
    settings = train.schedule.model_dump(exclude={"kind"})
    if train.schedule.kind == "constant":
        return None
    return partial(SCHEDULES[train.schedule.kind], span=Span(per_epoch, train.epochs), **settings)


def n_segments(spec: StageSpec, summary: Document) -> int:
    """Return the number of partitions of a training: one for each checkpoint."""
    return -(-training_steps(spec, summary)[1] // training_of(spec).checkpoint_every)


def course_size(spec: StageSpec, survey: Survey, weights: int, *, key: str = "") -> Size:
    """Return the size of any stage that trains `weights` bytes, without what else it keeps.

    A checkpoint holds the weights and what the optimiser keeps of each.

    Parameters
    ----------
    key : config key of the training's settings; default: that of the network's own training

    Raises
    ------
    ValueError : a split that is not there, batches that do not go with the data; names the key
    """
    train, found = training_of(spec), survey.data(spec.inputs["data"])
    for split in (train.split, train.evaluate):
        found.split(split)
    held, place = train.optimizer.copies, key or f"networks.{spec.place['network']}.train"
    try:
        segments = n_segments(spec, found.summary)
    except ValueError as error:
        raise ValueError(f"{place}.{error}") from error
    written = (held * segments + 1) * weights
    return Size(written, 2 * MEMORY_SAMPLES + (4 + 2 * held) * weights)
