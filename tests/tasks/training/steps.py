"""A range of steps of a training, by its parts."""

from typing import Any

import numpy as np
import torch
from torch import nn

from tasks.training.batches import Batches, Positions
from tasks.training.loop import Fetch, Recorder, Samples, Trainer

N_MOST = 10_000  # samples of a test


def train_steps(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    fetch: Fetch,
    batches: Batches,
    start: int,
    stop: int,
    *,
    ids: Positions | None = None,
    recorder: Recorder | None = None,
    **parts: Any,  # Any: schedule, clip, augment and companions of a Trainer
) -> list[float]:
    """Make the steps `start:stop` and return their losses."""
    positions = np.arange(N_MOST, dtype=np.int64) if ids is None else ids
    return Trainer(model, optimizer, Samples(fetch, batches, positions), **parts).run(start, stop, recorder)
