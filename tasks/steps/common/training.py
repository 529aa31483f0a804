"""The training stage: a network from the run's seed, or from given weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from configs.schema import Network
from storage.partitions import Partition
from storage.specs import StageSpec
from storage.stages import Stage
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.common.chain import (
    Opened,
    chain_layout,
    chain_summary,
    check_chain,
    held_out_images,
    keep_content,
    train_segment,
)
from tasks.steps.common.courses import (
    CURVES,
    MEMORY_SAMPLES,
    course_size,
    key_settings,
    training_of,
)
from tasks.steps.common.networks import network_identity
from tasks.steps.common.recording import UPDATES, archive_line, archive_size, dropped_bytes
from tasks.steps.common.starts import start_identity, undone_line
from tasks.steps.common.survey import state_bytes
from tasks.steps.common.trainable import check_trainable
from tasks.steps.common.trainer import open_trainer

if TYPE_CHECKING:
    import torch

VERSION = 1


def training_spec(
    name: str,
    network: Network,
    manifest: StageSpec,
    seed: int,
    *,
    inputs: Mapping[str, StageSpec] | None = None,
    stage: str = "",
) -> StageSpec:
    """Return the spec of the training of a network from one seed.

    Parameters
    ----------
    inputs : `start`, a stage with the weights to start from: another training, or a ticket; with a ticket `masks`, a
        pruning; `image_features` and `words` for the diversity regulariser
    stage : name of the training in a lottery, for people

    Raises
    ------
    ValueError : the weights of its start are missing or do not fit; names the config's key
    """
    assert network.train is not None
    parameters, place, digests = network_identity(name, network, manifest)
    given = inputs or {}
    start, start_digest = ({"start": None}, {}) if "start" in given else start_identity(name, network)
    return TRAINING.spec(
        {"network": parameters, "train": key_settings(network.train), "seed": seed},
        {"data": manifest, **given},
        digests={**digests, **start_digest},
        place={**place, "train": {**network.train.model_dump(mode="json"), **start}},
        label=f"{name} seed {seed} {stage}".strip(),
    )


def _open(stage: Stage, part: Partition, device: torch.device) -> Opened:
    """Return the training of a network at step 0."""
    if part.number == 0:
        keep_content(stage, part)
    trainer = open_trainer(stage.store, stage.spec, device, MEMORY_SAMPLES)
    return Opened(trainer, *held_out_images(stage, device))


def _partition(work: Work, number: int) -> None:
    """Train one segment of a network."""
    train_segment(work, number, _open)


def _size(spec: StageSpec, survey: Survey) -> Size:
    """Return the size: a checkpoint holds the weights and the optimiser's numbers, about 4 bytes each."""
    check_trainable(spec, survey)
    weights = state_bytes(survey.blank(spec))
    course, (kind, archive) = course_size(spec, survey, weights), archive_size(spec, survey)
    saved = dropped_bytes(spec, survey, kind, weights)
    peak = course.peak + (UPDATES + 8 * weights if archive else 0)
    lines = undone_line(spec), archive_line(training_of(spec), spec.label, kind, archive)
    return Size(course.written + archive - saved, peak, "; ".join(filter(None, lines)))


TRAINING = Step(
    "training",
    VERSION,
    chain_layout,
    _partition,
    _size,
    summary=chain_summary,
    check=check_chain,
    network=True,
    chain=True,
    curves=CURVES,
    keeps_content=True,
)
