"""A training cut anywhere and gone on with in a fresh process's state gives the same bits, whatever its parts."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load
from torch import Tensor, nn

from tasks.recording.checkpoints import load_checkpoint, pack_checkpoint
from tasks.training.augmentation import crop_and_flip
from tasks.training.batches import Positions
from tasks.training.ghost_norm import with_ghost_norm
from tasks.training.optimizers import OPTIMIZERS
from tasks.training.samplers import SAMPLERS
from tasks.training.schedules import SCHEDULES, Span
from tests.tasks.training.steps import train_steps

LABELS = np.repeat(np.arange(3), [9, 7, 5])
INPUTS = torch.randn((21, 2, 4, 4), generator=torch.Generator().manual_seed(1))
IDS = np.arange(21, dtype=np.int64) * 3 + 100
SETTINGS: dict[str, dict[str, Any]] = {
    "shuffled": {"size": 6},
    "single-class": {"size": 4, "ghosts": 5},
    "single-example": {},
}
OPTIMIZER_SETTINGS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "adam": {"lr": 0.01, "weight_decay": 0.01},
    "adamw": {"lr": 0.01},
    "sam": {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01},
}


def fetch(positions: Positions) -> tuple[Tensor, Tensor]:
    return INPUTS[torch.from_numpy(positions)], torch.from_numpy(LABELS[positions])


def fresh(optimizer: str, ghosts: bool) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a seeded network and its optimiser."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = nn.Sequential(
            nn.Conv2d(2, 4, 3, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(16, 3),
        )
    if ghosts:
        model = with_ghost_norm(model)
    return model, OPTIMIZERS[optimizer](model.parameters(), **OPTIMIZER_SETTINGS[optimizer])


@pytest.mark.parametrize("augmented", [False, True])
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_random_cut_leaves_no_trace(optimizer: str, sampler: str, augmented: bool) -> None:
    batches = SAMPLERS[sampler](LABELS, 2, **SETTINGS[sampler])
    stop = 3 * batches.per_epoch
    cut = int(np.random.default_rng([*optimizer.encode(), *sampler.encode(), augmented]).integers(1, stop))
    span = Span(batches.per_epoch, 3)
    rest: dict[str, Any] = {
        "schedule": partial(SCHEDULES["cosine"], span=span, warmup=0.5),
        "clip": 0.5,
        "ids": IDS,
        "augment": partial(augment, pad=1, flip=True) if augmented else None,
    }
    model, made = fresh(optimizer, sampler == "single-class")
    losses = train_steps(model, made, fetch, batches, 0, stop, **rest)
    expected = pack_checkpoint(model, made, generators=False)
    model, made = fresh(optimizer, sampler == "single-class")
    first = train_steps(model, made, fetch, batches, 0, cut, **rest)
    kept = pack_checkpoint(model, made, generators=False)
    model, made = fresh(optimizer, sampler == "single-class")
    load_checkpoint(kept, model, made, "kept")
    assert pack_checkpoint(model, made, generators=False) == kept
    assert first + train_steps(model, made, fetch, batches, cut, stop, **rest) == losses
    assert pack_checkpoint(model, made, generators=False) == expected


def augment(images: Tensor, ids: Positions, epoch: int, *, pad: int, flip: bool) -> Tensor:
    return crop_and_flip(images, ids, seed=2, epoch=epoch, pad=pad, flip=flip)


def test_augmentation_sees_ids_and_epochs_and_changes_the_training() -> None:
    batches, seen = SAMPLERS["shuffled"](LABELS, 2, size=6), []

    def watched(images: Tensor, ids: Positions, epoch: int) -> Tensor:
        seen.append((ids.tolist(), epoch))
        return images

    model, made = fresh("sgd", ghosts=False)
    train_steps(model, made, fetch, batches, 3, 6, augment=watched, ids=IDS)
    assert seen == [(IDS[batches.batch(step).examples].tolist(), step // 4) for step in range(3, 6)]


@pytest.mark.parametrize(("kind", "keys"), [("adam", {"step", "exp_avg", "exp_avg_sq"}), ("sgd", {"momentum_buffer"})])
def test_all_of_an_optimisers_state_is_kept(kind: str, keys: set[str]) -> None:
    model, made = fresh(kind, ghosts=False)
    train_steps(model, made, fetch, SAMPLERS["shuffled"](LABELS, 2, size=6), 0, 2)
    tensors = load(pack_checkpoint(model, made, generators=False))  # safetensors' own reader
    assert {name.split(".", 2)[2] for name in tensors if name.startswith("optimizer.")} == keys
    assert {name.removeprefix("model.") for name in tensors if name.startswith("model.")} == set(model.state_dict())
    if kind == "adam":
        assert tensors["optimizer.0.step"].item() == 2
