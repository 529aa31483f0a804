"""The trainer of a spec: model, optimiser, batches and schedule, for any range of steps."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from configs.training import Course, Training
from storage.documents import Document
from storage.specs import StageSpec
from storage.stages import open_finished
from storage.stores import Store
from storage.tensors import RawTensor, decode_tensors, encode_tensors
from tasks.io.networks import build_model
from tasks.steps.common.companions import Settings, companion_settings
from tasks.steps.common.courses import open_batches, open_schedule, training_of
from tasks.steps.common.fetching import open_fetch
from tasks.steps.common.manifest import positions
from tasks.steps.common.networks import WEIGHTS, check_unchanged, load_packed, stage_weights
from tasks.steps.common.starts import load_start, load_trained
from tasks.steps.common.trials import example_of, spread
from tasks.training.batches import Positions

if TYPE_CHECKING:
    import torch
    from torch import nn

    from tasks.training.companions import Attach, Companion
    from tasks.training.loop import Fetch, Samples, Trainer


def pack_training(trainer: Trainer) -> bytes:
    """Return the state of model, optimiser and companions as a safetensors file."""
    from tasks.recording.checkpoints import pack_checkpoint

    data = pack_checkpoint(trainer.model, trainer.optimizer, generators=False)  # a step draws from its own seed
    extra = {name: tensor for one in trainer.companions for name, tensor in one.tensors().items()}
    if not extra:
        return data
    tensors, texts = decode_tensors(data, "checkpoint")  # next to the model, whose part of the file stays the same
    return encode_tensors({**tensors, **{name: _raw(tensor) for name, tensor in extra.items()}}, texts)


def load_training(trainer: Trainer, data: bytes, what: str = "checkpoint") -> None:
    """Load a state that `pack_training` returned; errors begin with `what`."""
    import torch

    from tasks.recording.checkpoints import load_checkpoint

    load_checkpoint(data, trainer.model, trainer.optimizer, what)
    extra = {name: tensor for one in trainer.companions for name, tensor in one.tensors().items()}
    if not extra:
        return
    tensors = decode_tensors(data, what)[0]
    with torch.no_grad():
        for name, tensor in extra.items():
            raw = tensors[name]
            tensor.copy_(torch.from_numpy(np.array(raw.data)).view(torch.float32).reshape(raw.shape))


def open_trainer(
    store: Store,
    spec: StageSpec,
    device: torch.device,
    memory: int,
    *,
    seed: int | None = None,
    subset: Positions | None = None,
) -> Trainer:
    """Return the training of a spec at step 0; its manifest must be complete.

    Parameters
    ----------
    memory : largest training set in bytes of inputs that stays in memory
    seed : seed in place of the spec's
    subset : (m,) int64 positions to train on, ascending; None for all

    Raises
    ------
    ValueError : the weights of its start have changed since the plan
    """
    set_deterministic(device)
    train, network = training_of(spec), spec.parameters["network"]
    seed = int(spec.parameters["seed"]) if seed is None else seed
    model = build_model(network["model"], network["arguments"], seed)
    if isinstance(train.start, str):
        check_unchanged(train.start, spec.digests["start"])
        load_start(model, train.start)
    if "start" in spec.inputs:
        _load_stage(store, spec.inputs["start"], model)
    samples = open_samples(store, spec, device, memory, seed, subset)
    return make_trainer(train, seed, model, samples, device, companion_settings(store, spec))


def open_samples(
    store: Store, spec: StageSpec, device: torch.device, memory: int, seed: int, subset: Positions | None = None
) -> Samples:
    """Return the training images of a spec; the parameters are those of `open_trainer`."""
    from tasks.training.loop import Samples

    train, manifest = training_of(spec), spec.inputs["data"]
    rows = positions(store, manifest.path, train.split)
    fetch, ids = open_fetch(store, spec, train.split, device, memory), rows["id"].to_numpy(np.int64, copy=True)
    labels = rows["label_given"].to_numpy(np.int64)
    if subset is None:
        return Samples(fetch, open_batches(train, labels, seed), ids)
    return Samples(partial(_fetched, fetch, subset), open_batches(train, labels[subset], seed), ids[subset])


def make_trainer(
    train: Training,
    seed: int,
    model: nn.Module,
    samples: Samples,
    device: torch.device,
    companions: Mapping[str, Settings] | None = None,
) -> Trainer:
    """Return the training of a model on samples at step 0.

    Parameters
    ----------
    seed : seed of batches, augmentation and the random numbers of steps
    model : model with its first weights, on the CPU; this function moves it, and the trainer trains it
    companions : settings of each companion by its name
    """
    from tasks.training.ghost_norm import with_ghost_norm
    from tasks.training.loop import Trainer

    prepared = _prepared(companions or {}, model, samples)
    model, batches = model.to(device), train.batches
    if batches.kind == "single-class" and batches.ghosts:
        printed = batches.ghost_norm == "as_printed"
        model = with_ghost_norm(model, as_printed=printed, detach_ghosts=batches.detach_ghosts)
    attached = tuple(attach(model) for attach in prepared)
    return Trainer(
        model,
        _optimizer(train, model, attached),
        samples,
        open_schedule(train, samples.batches.per_epoch),
        train.clip,
        None if train.augment is None else partial(_augmented, seed, train.augment.model_dump()),
        attached,
    )


def environment(device: torch.device) -> Document:
    """Return the facts that must be equal for equal bits, in the deterministic mode of a training."""
    from tasks.recording.environment import environment_facts

    set_deterministic(device)
    return environment_facts(device)


def set_deterministic(device: torch.device) -> None:
    """Set torch's deterministic mode, in which kernels give the same bits each time."""
    import torch

    torch.set_num_threads(1)
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False


def _load_stage(store: Store, start: StageSpec, model: nn.Module) -> None:
    """Load the weights of a lottery's ticket whole, or the trunk and the fitting head of another training."""
    if "train" in start.parameters:
        load_trained(model, open_finished(store, start).read_file(WEIGHTS), start.title)
    else:
        load_packed(model, stage_weights(store, start))


def _fetched(fetch: Fetch, subset: Positions, picked: Positions) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs and labels of samples by their place in a subset."""
    return fetch(subset[picked])


def _augmented(seed: int, settings: dict[str, Any], images: torch.Tensor, ids: Positions, epoch: int) -> torch.Tensor:
    """Return the augmented images of an epoch."""  # Any: settings of crop_and_flip
    from tasks.training.augmentation import crop_and_flip

    return crop_and_flip(images, ids, seed=seed, epoch=epoch, **settings)


def _prepared(asked: Mapping[str, Settings], model: nn.Module, samples: Samples) -> list[Attach]:
    """Return functions that attach the companions of a training; the model returns to training mode."""
    from tasks.training.companions import COMPANIONS

    if not asked:
        return []
    images, _ = samples.fetch(spread(len(samples.ids)))
    example = example_of(images)
    model.eval()
    prepared = [
        prepare(asked[name], model, example, images.cpu()) for name, prepare in COMPANIONS.items() if name in asked
    ]
    model.train()
    return prepared


def _optimizer(train: Course, model: nn.Module, companions: tuple[Companion, ...]) -> torch.optim.Optimizer:
    """Return the optimiser of a model and its companions; each companion has its own parameter groups."""
    from tasks.training.optimizers import OPTIMIZERS

    settings: Document = train.optimizer.model_dump(mode="json", exclude={"kind"})
    groups = [{"params": list(model.parameters())}, *(group for one in companions for group in one.groups())]
    return OPTIMIZERS[train.optimizer.kind](groups, **settings)


def _raw(tensor: torch.Tensor) -> RawTensor:
    """Return a float32 tensor in the form of a checkpoint."""
    values = np.ascontiguousarray(tensor.detach().cpu().numpy())
    return RawTensor("F32", values.shape, values.reshape(-1).view(np.uint8))
