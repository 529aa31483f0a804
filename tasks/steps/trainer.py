"""A training as its spec says it: model, optimiser, batches, schedule, ready to make any range of steps."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from storage.documents import Document
from storage.specs import StageSpec
from storage.stages import open_finished
from storage.stores import Store
from storage.tensors import RawTensor, decode_tensors, encode_tensors
from tasks.io.networks import build_model
from tasks.recording.checkpoints import load_checkpoint, pack_checkpoint
from tasks.recording.environment import environment_facts
from tasks.steps.fetching import open_fetch
from tasks.steps.manifest import positions
from tasks.steps.networks import check_unchanged, load_start
from tasks.steps.trials import example_input, spread
from tasks.training.augmentation import crop_and_flip
from tasks.training.batches import Batches, Positions
from tasks.training.gates import ClassGates, GatedMap, Gating, find_gated_map
from tasks.training.ghost_norm import with_ghost_norm
from tasks.training.loop import Augment, Fetch, Recorder, train_steps
from tasks.training.optimizers import OPTIMIZERS
from tasks.training.samplers import SAMPLERS
from tasks.training.schedules import SCHEDULES, Schedule, Span

GATE_MATRIX = "gates"  # name of the tensor in checkpoints and in a training's file of gates
LOSS_ONLY = ("ghost_norm", "detach_ghosts")  # settings of batches that samplers do not know


@dataclass(frozen=True)
class Samples:
    """What a training learns from: inputs and labels by position, batches of positions, and (n,) sample ids."""

    fetch: Fetch
    batches: Batches
    ids: Positions


@dataclass(frozen=True)
class Trainer:
    """What it takes to make the steps of a training; `model`, `optimizer` and gates change with every step."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    fetch: Fetch
    batches: Batches
    ids: Positions
    schedule: Schedule | None
    clip: float | None
    augment: Augment | None
    gating: Gating | None = None

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
            gating=self.gating,
        )

    def state(self) -> bytes:
        """Return the state of model, gates and optimiser as a safetensors file."""
        data = pack_checkpoint(self.model, self.optimizer, generators=False)  # a step draws from its own seed
        return data if self.gating is None else _with_gates(data, self.gating.gates)

    def load(self, data: bytes) -> None:
        """Go to a state that `state` returned."""
        load_checkpoint(data, self.model, self.optimizer, "checkpoint")
        if self.gating is not None:
            _load_gates(data, self.gating.gates)


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

    Raises
    ------
    ValueError : the weights that it starts from have changed since the run was planned
    """
    settle(device)
    train, network = spec.place["train"], spec.parameters["network"]
    seed = int(spec.parameters["seed"]) if seed is None else seed
    model = build_model(network["model"], network["arguments"], seed)
    if train["start"] is not None:
        check_unchanged(train["start"], spec.digests["start"])
        load_start(model, train["start"])
    return make_trainer(train, seed, model, open_samples(store, spec, device, memory, seed, subset), device)


def open_samples(
    store: Store, spec: StageSpec, device: torch.device, memory: int, seed: int, subset: Positions | None = None
) -> Samples:
    """Return the images that a spec trains on; parameters as in `open_trainer`."""
    train, manifest = spec.place["train"], spec.inputs["data"]
    rows = positions(store, manifest.path, str(train["split"]))
    fetch, ids = open_fetch(store, spec, str(train["split"]), device, memory), rows["id"].to_numpy(np.int64, copy=True)
    if subset is None:
        return Samples(fetch, open_batches(train, open_finished(store, manifest).summary, seed), ids)
    labels = rows["label_given"].to_numpy(np.int64)[subset]
    return Samples(partial(_fetched, fetch, subset), _batches(train, labels, seed), ids[subset])


def make_trainer(train: Document, seed: int, model: nn.Module, samples: Samples, device: torch.device) -> Trainer:
    """Return the training of a model on samples at step 0.

    Parameters
    ----------
    train : settings, as JSON
    seed : of batches, augmentation and the steps' own random numbers
    model : at its first weights, on the CPU; it is moved and trained
    """
    place = None if train["gates"] is None else _gated_map(model, samples)
    model = model.to(device)
    if (batches := train["batches"]).get("ghosts"):
        printed = batches["ghost_norm"] == "as_printed"
        model = with_ghost_norm(model, as_printed=printed, detach_ghosts=batches["detach_ghosts"])
    gating = None if place is None else _gating(train["gates"], place, model, device)
    return Trainer(
        model,
        _optimizer(train, model, gating),
        samples.fetch,
        samples.batches,
        samples.ids,
        open_schedule(train, samples.batches.per_epoch),
        train["clip"],
        None if train["augment"] is None else partial(_augmented, seed, dict(train["augment"])),
        gating,
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
    """Return what must be the same for the same bits, with the kernels that a training chooses."""
    settle(device)
    return environment_facts(device)


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


def _gated_map(model: nn.Module, samples: Samples) -> GatedMap:
    """Return where a model's gates go; the model is put back into training mode."""
    images, _ = samples.fetch(spread(len(samples.ids)))
    found = find_gated_map(model.eval(), example_input(tuple(images.shape[1:])), images=images.cpu())
    model.train()
    return found


def _gating(settings: Document, place: GatedMap, model: nn.Module, device: torch.device) -> Gating:
    """Return fresh gates on a model's last map."""
    gates = ClassGates(place.n_channels, place.n_classes).to(device)
    rest = {key: value for key, value in settings.items() if key not in ("lr", "momentum")}
    return Gating(gates, model.get_submodule(place.name), **rest)


def _optimizer(train: Document, model: nn.Module, gating: Gating | None) -> torch.optim.Optimizer:
    """Return the optimiser; gates are a group of their own, to which SGD does what a second optimiser would."""
    settings = dict(train["optimizer"])
    make = OPTIMIZERS[settings.pop("kind")]
    if gating is None:
        return make(model.parameters(), **settings)
    own = {"lr": train["gates"]["lr"], "momentum": train["gates"]["momentum"], "weight_decay": 0.0, "nesterov": False}
    groups = [{"params": list(model.parameters())}, {"params": [gating.gates.weight], **own}]
    return make(groups, **settings)


def _with_gates(data: bytes, gates: ClassGates) -> bytes:
    """Return a checkpoint with the gates in it, beside the model, whose weights stay what a model of its kind loads."""
    tensors, texts = decode_tensors(data, "checkpoint")
    weight = np.ascontiguousarray(gates.weight.detach().cpu().numpy())
    raw = RawTensor("F32", weight.shape, weight.reshape(-1).view(np.uint8))
    return encode_tensors({**tensors, GATE_MATRIX: raw}, texts)


def _load_gates(data: bytes, gates: ClassGates) -> None:
    """Give the gates the values in a checkpoint."""
    raw = decode_tensors(data, "checkpoint")[0][GATE_MATRIX]
    with torch.no_grad():
        gates.weight.copy_(torch.from_numpy(np.array(raw.data)).view(torch.float32).reshape(raw.shape))
