"""The chain of segments of a training: each continues from the checkpoint before it, so that it resumes bitwise.

An `Opener` gives model and data of a kind of training; the chain is the same for all kinds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from configs.training import Training
from storage.documents import Document, digest
from storage.finished import ABSENT
from storage.layouts import Layout
from storage.notes import read_markers
from storage.partitions import Partition
from storage.results import table_bytes
from storage.specs import StageSpec
from storage.stages import Stage, open_finished
from storage.stores import Store, StoreError
from storage.updates.archives import dropped_checkpoints, keep_chain, kept_every, sweep_files
from tasks.engine.life import measured
from tasks.engine.step import Work
from tasks.steps.common.content import compare_content, content_file
from tasks.steps.common.courses import (
    CURVES,
    MEMORY_SAMPLES,
    n_segments,
    open_schedule,
    training_of,
)
from tasks.steps.common.fetching import open_fetch, read_content
from tasks.steps.common.manifest import positions
from tasks.steps.common.networks import (
    WEIGHTS,
    choose_device,
    pack_state,
)
from tasks.steps.common.recording import recording
from tasks.steps.common.step_seconds import step_seconds, unrecorded_seconds
from tasks.steps.common.trainer import environment, load_training, pack_training


def tensor_file(name: str) -> str:
    """Return the file name of a companion's tensor in a training."""
    return f"{name}.safetensors"


def same_environment(training: StageSpec, made: Document, here: Document, remedy: str) -> None:
    """Raise StoreError where a training from the environment `made` cannot continue bitwise in `here`."""
    from tasks.recording.environment import environment_difference

    if (differs := environment_difference(made, here)) is not None:
        raise StoreError(
            f"{training.title}: expected {differs} {made.get(differs)}, as for its checkpoint, "
            f"found {here[differs]}; resume there, or {remedy}"
        )


@dataclass(frozen=True)
class Opened:
    """A training at step 0, and the held-out samples for its accuracy.

    Parameters
    ----------
    trainer : makes the steps
    held_out, n_held_out : function that returns the samples 0..n-1, and n
    from_weights : whether the accuracy before the first step is measured
    """

    trainer: Trainer
    held_out: Fetch
    n_held_out: int
    from_weights: bool = False


if TYPE_CHECKING:
    import torch

    from tasks.training.loop import Fetch, Recorder, Trainer

    Opener = Callable[[Stage, Partition, torch.device], Opened]  # the partition, for what the first segment writes


def chain_layout(store: Store, spec: StageSpec) -> Layout:
    """Return the layout of a chain: one partition for each checkpoint interval."""
    return Layout(n_segments(spec, open_finished(store, spec.inputs["data"]).summary))


def check_chain(stage: Stage) -> Stage:
    """Keep one chain: remove every segment that does not start from its predecessor's checkpoint."""
    return replace(stage, seen=dict(enumerate(keep_chain(stage))))


def train_segment(work: Work, number: int, opener: Opener) -> None:
    """Train one segment and write its checkpoint; the digest in its name keeps attempts apart."""
    from tasks.training.loop import accuracy

    stage, device = work.stage, choose_device(work.device)
    train = training_of(stage.spec)
    earlier = Earlier(stage, number)
    parent = previous_segment(earlier, environment(device))
    with stage.partition(number) as part:
        opened = opener(stage, part, device)
        trainer = opened.trainer
        if parent:
            load_training(trainer, read_checkpoint(stage, parent["checkpoint"]))
        elif opened.from_weights:
            part.numbers["start_accuracy"] = accuracy(trainer.model, opened.held_out, opened.n_held_out)
        if trainer.companions and not parent:
            part.numbers["step_seconds"] = step_seconds(trainer)
        start = number * train.checkpoint_every
        stop = min(start + train.checkpoint_every, trainer.samples.batches.per_epoch * train.epochs)
        if train.record is not None and not parent:
            part.numbers["unrecorded_seconds"] = unrecorded_seconds(trainer, stop - start)
        with recording(train, part, trainer, parent, (start, stop)) as recorder:
            before = time.process_time()
            losses, epochs, evaluated = _segment(earlier, opened, (start, stop), recorder)
        part.numbers["steps_seconds"] = time.process_time() - before - evaluated  # CPU, the writing threads' too
        data = pack_training(trainer)
        name = part.write_addressed(f"checkpoint-{number:06d}-{{digest}}.safetensors", data)
        part.numbers.update(
            measured(
                parent=parent.get("checkpoint", ""),
                checkpoint=name,
                losses=losses,
                epochs=epochs,
                environment=environment(device),
            )
        )
        part.removed += thinned_checkpoints(earlier, part)
        if number == stage.layout.partitions - 1:
            _write_result(earlier, part, trainer)


def keep_content(stage: Stage, part: Partition) -> None:
    """Compare the samples of the splits with those of earlier stages, and keep their digests for later ones."""
    train = training_of(stage.spec)
    for split in dict.fromkeys((train.split, train.evaluate)):
        content = read_content(stage.store, stage.spec, split, MEMORY_SAMPLES)
        compare_content(stage, split, content, 0, positions(stage.store, stage.spec.inputs["data"].path, split))
        part.write_file(content_file(split), content.tobytes())


def held_out_images(stage: Stage, device: torch.device) -> tuple[Fetch, int]:
    """Return the function that returns held-out samples, and their number."""
    split = training_of(stage.spec).evaluate
    survey = open_finished(stage.store, stage.spec.inputs["data"]).summary
    fetch = open_fetch(stage.store, stage.spec, split, device, MEMORY_SAMPLES)
    return fetch, int(sum(survey["splits"][split]["counts"]))


def chain_summary(stage: Stage) -> Document:
    """Return the last accuracy, and remove files of abandoned attempts."""
    markers = keep_chain(stage)
    sweep_files(stage, markers)
    first, last = markers[0]["numbers"], markers[-1]["numbers"]
    recorded = sum(marker["numbers"]["recording"]["bytes"] for marker in markers if "recording" in marker["numbers"])
    found: Document = {"accuracy": last["epochs"][-1]["accuracy"]}
    if "start_accuracy" in first:
        found["start_accuracy"] = first["start_accuracy"]
    kind = last.get("recording", {}).get("kind", "dense")
    return found | ({"archive_bytes": recorded} if recorded else {}) | ({} if kind == "dense" else {"archive": kind})


@dataclass
class Earlier:
    """The metrics of the segments of a stage before segment `number`; each partition record is read once."""

    stage: Stage
    number: int
    read: dict[int, Document] = field(default_factory=dict)

    def numbers(self, first: int) -> list[Document]:
        """Return the metrics of the segments from `first` on."""
        wanted = range(first, self.number)
        asked = [(self.stage.spec.path, number) for number in wanted if number not in self.read]
        for (_, number), marker in read_markers(self.stage.store, asked).items():
            if not isinstance(marker, Exception):
                self.read[number] = marker["numbers"]
        return [self.read[number] for number in wanted if number in self.read]


def _segment(
    earlier: Earlier, opened: Opened, span: tuple[int, int], recorder: Recorder | None
) -> tuple[list[float], list[Document], float]:
    """Make the steps of a segment; return their losses, each epoch that ends there, and CPU seconds of evaluations.

    An epoch has its loss, accuracy and rate, and the measures of companions.
    """
    from tasks.training.loop import accuracy

    trainer, every = opened.trainer, training_of(earlier.stage.spec).checkpoint_every
    per_epoch = trainer.samples.batches.per_epoch
    start, stop = span
    before = earlier.numbers(start // per_epoch * per_epoch // every)  # of the epoch in progress
    losses = [loss for numbers in before for loss in numbers["losses"]]
    n_before, epochs, evaluated = len(losses), list[Document](), 0.0
    while start < stop:
        end = min(stop, (start // per_epoch + 1) * per_epoch)
        losses += trainer.run(start, end, recorder)
        if end % per_epoch == 0:
            held_out, before_it = (opened.held_out, opened.n_held_out), time.process_time()
            epochs.append(
                {
                    "epoch": end // per_epoch,
                    "loss": float(np.mean(losses[-per_epoch:])),
                    "accuracy": accuracy(trainer.model, *held_out),
                    "lr": float(trainer.optimizer.param_groups[0]["lr"]),
                    **{key: value for one in trainer.companions for key, value in one.measures(*held_out).items()},
                }
            )
            evaluated += time.process_time() - before_it
        start = end
    return losses[n_before:], epochs, evaluated


def previous_segment(earlier: Earlier, here: Document) -> Document:
    """Return the metrics of the segment before, after a check of its environment."""
    if earlier.number == 0:
        return {}
    stage = earlier.stage
    (before,) = earlier.numbers(earlier.number - 1)
    remedy = f"remove {stage.store.path(stage.spec.path)} to train again"
    same_environment(stage.spec, before["environment"], here, remedy)
    return before


def thinned_checkpoints(earlier: Earlier, part: Partition) -> list[str]:
    """Return the checkpoints that the archive does without once the partition is complete."""
    from tasks.recording.archives import ARCHIVES

    recorded = part.numbers.get("recording")
    if recorded is None or not ARCHIVES[recorded["kind"]].recomputes or kept_every(earlier.number + 1) == 1:
        return []
    asked = [(earlier.stage.spec.path, number) for number in range(earlier.number)]
    read = read_markers(earlier.stage.store, asked)
    records = [marker for each in asked if not isinstance(marker := read[each], Exception)]
    assert len(records) == earlier.number, earlier.stage.spec.title
    return dropped_checkpoints(records)


def read_checkpoint(stage: Stage, name: str) -> bytes:
    """Return a checkpoint after a comparison with the digest in its name."""
    try:
        data = stage.store.read(f"{stage.spec.path}/files/{name}")
    except ABSENT:
        raise StoreError(f"{stage.spec.title}: expected {name}, found none; remove the stage's folder") from None
    if digest(data)[:12] != name.split("-")[-1].removesuffix(".safetensors"):
        raise StoreError(
            f"{stage.spec.title}: expected the digest in the name of {name}, found damage; remove the stage's folder"
        )
    return data


def _write_result(earlier: Earlier, part: Partition, trainer: Trainer) -> None:
    """Write the last weights, the tensors of companions, and the curves, after the metrics of the last segment."""
    from tasks.io.tensors import pack_tensors

    part.write_file(WEIGHTS, pack_state(trainer.model))
    for companion in trainer.companions:
        for name, tensor in companion.tensors().items():
            part.write_file(tensor_file(name), pack_tensors({name: tensor}))
    train, numbers = training_of(earlier.stage.spec), [*earlier.numbers(0), part.numbers]
    part.write_file(CURVES, table_bytes(_curves(train, numbers, trainer.samples.batches.per_epoch)))


def _curves(train: Training, segments: Sequence[Document], per_epoch: int) -> pd.DataFrame:
    """Return a row per epoch: mean loss, held-out accuracy, and the last learning rate where a schedule changes it.

    Epoch 0 has the accuracy before the first step, where it was measured, without loss or rate.
    """
    losses = [loss for numbers in segments for loss in numbers["losses"]]
    epochs = [epoch for numbers in segments for epoch in numbers["epochs"]]
    table = pd.DataFrame(
        {
            "epoch": [e["epoch"] for e in epochs],
            "loss": np.array(losses).reshape(-1, per_epoch).mean(axis=1),
            "accuracy": [e["accuracy"] for e in epochs],
            **{key: [e[key] for e in epochs] for key in epochs[0] if key not in ("epoch", "loss", "accuracy", "lr")},
        }
    )
    schedule = open_schedule(train, per_epoch)
    if schedule is not None:  # for a constant rate the table stays as it was before schedules existed
        rates = [train.optimizer.lr * schedule(e * per_epoch - 1) for e in table["epoch"].tolist()]
        table = table.assign(lr=rates)
    if "start_accuracy" not in segments[0]:
        return table
    first = pd.DataFrame({"epoch": [0], "accuracy": [segments[0]["start_accuracy"]]})
    return pd.concat([first, table], ignore_index=True)[list(table.columns)]
