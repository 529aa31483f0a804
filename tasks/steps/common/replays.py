"""The archive of a recorded training, of any kind: a replay makes the steps again from the training's own spec."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage.specs import StageSpec
from storage.stages import open_finished
from storage.stores import Store
from storage.updates.archives import find_conversions
from tasks.steps.common.courses import MEMORY_SAMPLES
from tasks.steps.common.survey import blank_network
from tasks.steps.common.tied import linked_source
from tasks.steps.common.trainer import load_training, open_trainer, pack_training

if TYPE_CHECKING:
    import torch
    from torch import nn

    from tasks.recording.programs import Row
    from tasks.recording.sources import UpdateSource
    from tasks.training.loop import Trainer


@dataclass(frozen=True)
class TrainerRun:
    """A training of a config that can make its recorded steps again (`tasks.recording.programs.Repeated`)."""

    trainer: Trainer

    @property
    def model(self) -> nn.Module:
        """Return the network."""
        return self.trainer.model

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Return the optimiser."""
        return self.trainer.optimizer

    def load(self, data: bytes, what: str) -> None:
        """Restore the state of a checkpoint."""
        for parameter in self.trainer.model.parameters():
            parameter.grad = None
        load_training(self.trainer, data, what)

    def pack(self) -> bytes:
        """Return the present state."""
        return pack_training(self.trainer)

    def steps(self, rows: Sequence[Row]) -> Iterator[None]:
        """Make consecutive updates; batches and rates are functions of the step."""
        for _ in self.trainer.steps(rows[0].step, rows[-1].step + 1):
            yield


@dataclass(frozen=True)
class RepeatTraining:
    """A function that begins a finished training again on the device of its recording, where that is present."""

    store: Store
    spec: StageSpec

    def __call__(self) -> TrainerRun:
        """Return the training at step 0."""
        import torch

        recorded = open_finished(self.store, self.spec).markers()[0]["numbers"]["environment"]
        device = torch.device(recorded["device"] if torch.cuda.is_available() else "cpu")
        return TrainerRun(open_trainer(self.store, self.spec, device, MEMORY_SAMPLES))


def open_archive(store: Store, training: StageSpec) -> UpdateSource:
    """Return the updates of a finished training by traced layer; the archive is opened again only if its files change.

    A replay that needs another environment is read from its conversion, if there is one.

    Raises
    ------
    StoreError : the training recorded nothing
    """
    from tasks.recording.traced import traced_source

    source = recorded_archive(store, training)
    if source.kind == "replay" and "updates" not in training.place and not _repeats_here(store, training):
        source = _converted(store, training, source)
    return traced_source(source, blank_network(training))


def recorded_archive(store: Store, training: StageSpec) -> UpdateSource:
    """Return the updates of a finished training from what the training itself recorded."""
    from tasks.recording.sources import recorded_source

    if "updates" in training.place:  # of a training elsewhere
        return linked_source(store, training)
    return recorded_source(store, training, RepeatTraining(store, training))


def _repeats_here(store: Store, training: StageSpec) -> bool:
    """Return whether this environment gives the bits of the recording, as far as is known before a step."""
    import torch

    from tasks.recording.environment import environment_difference
    from tasks.steps.common.trainer import environment

    made = open_finished(store, training).markers()[0]["numbers"]["environment"]
    here = environment(torch.device(made["device"] if torch.cuda.is_available() else "cpu"))
    return environment_difference(made, here) is None


def _converted(store: Store, training: StageSpec, source: UpdateSource) -> UpdateSource:
    """Return the conversion of a replay archive, else the archive, whose reader says why it cannot be replayed."""
    from tasks.recording.sources import update_source

    return next((update_source(stage) for stage in find_conversions(store).get(training.path, [])), source)
