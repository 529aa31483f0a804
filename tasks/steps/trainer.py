"""A training as its spec says it: model, optimiser, batches, schedule, ready to make any range of steps."""

import platform
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from storage.documents import Document
from storage.specs import StageSpec
from storage.stages import open_finished
from storage.stores import Store
from tasks.io.networks import build_model
from tasks.recording.checkpoints import load_checkpoint, pack_checkpoint
from tasks.steps.fetching import open_fetch
from tasks.steps.manifest import positions
from tasks.training.augmentation import crop_and_flip
from tasks.training.batches import Batches, Positions
from tasks.training.ghost_norm import with_ghost_norm
from tasks.training.loop import Augment, Fetch, Recorder, train_steps
from tasks.training.optimizers import OPTIMIZERS
from tasks.training.samplers import SAMPLERS
from tasks.training.schedules import SCHEDULES, Schedule, Span

LOSS_ONLY = ("ghost_norm", "detach_ghosts")  # settings of batches that samplers do not know


@dataclass(frozen=True)
class Trainer:
    """What it takes to make the steps of a training; `model` and `optimizer` change with every step."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    fetch: Fetch
    batches: Batches
    ids: Positions
    schedule: Schedule | None
    clip: float | None
    augment: Augment | None

    def run(self, start: int, stop: int, recorder: Recorder | None = None) -> list[float]:
        """Make the steps `start:stop` and return their losses; the state is that after step `start`."""
        return train_steps(
            self.model,
            self.optimizer,
            self.fetch,
            self.batches,
            start,
            stop,
            schedule=self.schedule,
            clip=self.clip,
            augment=self.augment,
            recorder=recorder,
            ids=self.ids,
        )

    def state(self) -> bytes:
        """Return the state of model and optimiser as a safetensors file."""
        return pack_checkpoint(self.model, self.optimizer, generators=False)  # a step draws from its own seed

    def load(self, data: bytes) -> None:
        """Go to a state that `state` returned."""
        load_checkpoint(data, self.model, self.optimizer, "checkpoint")


def open_trainer(
    store: Store,
    spec: StageSpec,
    device: torch.device,
    memory: int,
    *,
    seed: int | None = None,
    subset: Positions | None = None,
) -> Trainer:
    """Return the training of a spec at step 0; its manifest is complete.

    Parameters
    ----------
    memory : bytes of inputs up to which the training set is kept
    seed : in place of the spec's
    subset : (m,) int64 positions to train on, rising; None for all
    """
    settle(device)
    train, network, manifest = spec.place["train"], spec.parameters["network"], spec.inputs["data"]
    seed = int(spec.parameters["seed"]) if seed is None else seed
    model = build_model(network["model"], network["arguments"], seed).to(device)
    if (batches := train["batches"]).get("ghosts"):
        printed = batches["ghost_norm"] == "as_printed"
        model = with_ghost_norm(model, as_printed=printed, detach_ghosts=batches["detach_ghosts"])
    optimizer = dict(train["optimizer"])
    rows = positions(store, manifest.path, str(train["split"]))
    fetch, ids = open_fetch(store, spec, str(train["split"]), device, memory), rows["id"].to_numpy(np.int64, copy=True)
    if subset is None:
        made = open_batches(train, open_finished(store, manifest).summary, seed)
    else:
        made = _batches(train, rows["label_given"].to_numpy(np.int64)[subset], seed)
        fetch, ids = partial(_fetched, fetch, subset), ids[subset]
    return Trainer(
        model,
        OPTIMIZERS[optimizer.pop("kind")](model.parameters(), **optimizer),
        fetch,
        made,
        ids,
        open_schedule(train, made.per_epoch),
        train["clip"],
        None if train["augment"] is None else partial(_augmented, seed, dict(train["augment"])),
    )


def open_batches(train: Document, survey: Document, seed: int) -> Batches:
    """Return the batches of a training from its settings and the summary of its manifest: no table is read."""
    split = survey["splits"][train["split"]]
    labels = np.repeat(np.array(split["labels"], np.int64), split["counts"])  # positions are class-major
    return _batches(train, labels, seed)


def open_schedule(train: Document, per_epoch: int) -> Schedule | None:
    """Return the schedule of a training, None where the learning rate stays as it is."""
    settings = dict(train["schedule"])
    kind = settings.pop("kind")
    return None if kind == "constant" else partial(SCHEDULES[kind], span=Span(per_epoch, train["epochs"]), **settings)


def environment(device: torch.device) -> Document:
    """Return what must be the same for the same bits: device kind, instruction set, library versions."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return {"device": device.type, "kind": name, "machine": platform.machine(), "torch": str(torch.__version__)}


def settle(device: torch.device) -> None:
    """Choose kernels that give the same bits each time."""
    torch.set_num_threads(1)
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False


def _batches(train: Document, labels: Positions, seed: int) -> Batches:
    """Return the batches of samples with `labels`."""
    settings = {key: value for key, value in train["batches"].items() if key not in LOSS_ONLY}
    return SAMPLERS[settings.pop("kind")](labels, seed, **settings)


def _fetched(fetch: Fetch, subset: Positions, picked: Positions) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs and labels of samples by their place in a subset."""
    return fetch(subset[picked])


def _augmented(seed: int, settings: Document, images: torch.Tensor, ids: Positions, epoch: int) -> torch.Tensor:
    """Return images as an epoch sees them."""
    return crop_and_flip(images, ids, seed=seed, epoch=epoch, **settings)
