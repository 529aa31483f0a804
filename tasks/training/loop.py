"""The training loop: a range of steps at a time, so that a run can stop and go on anywhere."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.io.randomness import seeded
from tasks.training.batches import Positions, ShuffledBatches

Fetch = Callable[[Positions], tuple[Tensor, Tensor]]  # positions -> inputs (n, ...) float32, labels (n,) int64


def train_steps(
    model: nn.Module, optimizer: torch.optim.Optimizer, fetch: Fetch, batches: ShuffledBatches, start: int, stop: int
) -> list[float]:
    """Make the steps `start:stop` of a training; `model` and `optimizer` are changed in place.

    Returns
    -------
    the loss of each step before its update, in nats

    Raises
    ------
    ValueError : the loss is not finite; names the step
    """
    model.train()
    losses = []
    for step, positions in _steps(batches, start, stop):
        inputs, labels = fetch(positions)
        optimizer.zero_grad(set_to_none=True)
        with seeded(step_seed(batches.seed, step), inputs.device):  # dropout: f(seed, step), so that any step can go on
            loss = F.cross_entropy(model(inputs), labels)
        if not torch.isfinite(loss):
            raise ValueError(f"the loss is {loss.item()} at step {step}; lower the learning rate")
        loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def step_seed(seed: int, step: int) -> int:
    """Return the seed of a step's own random numbers, 63 bits."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)


def accuracy(model: nn.Module, fetch: Fetch, n: int, size: int = 256) -> float:
    """Return the share of samples 0..n-1 that `model` classifies rightly, in evaluation mode."""
    model.eval()
    right = 0
    with torch.inference_mode():
        for start in range(0, n, size):
            inputs, labels = fetch(np.arange(start, min(start + size, n), dtype=np.int64))
            right += int((model(inputs).argmax(1) == labels).sum())
    return right / n


def _steps(batches: ShuffledBatches, start: int, stop: int) -> Iterator[tuple[int, Positions]]:
    """Yield the steps `start:stop` with their batches."""
    for epoch in range(start // batches.per_epoch, -(-stop // batches.per_epoch)):
        first = epoch * batches.per_epoch
        for step, positions in enumerate(batches.epoch(epoch), first):
            if start <= step < stop:
                yield step, positions
