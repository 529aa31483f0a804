"""The training loop: a range of steps at a time, so that a run can stop and go on anywhere."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from tasks.io.randomness import seeded
from tasks.training.batches import Batch, Batches, Positions
from tasks.training.clipping import clip_gradients
from tasks.training.gates import Gating
from tasks.training.ghost_norm import ghost_rows, has_ghost_norm
from tasks.training.schedules import Schedule

Fetch = Callable[[Positions], tuple[Tensor, Tensor]]  # positions -> inputs (n, ...) float32, labels (n,) int64
Augment = Callable[[Tensor, Positions, int], Tensor]  # inputs (n, ...), sample ids (n,) int64, epoch -> inputs


class Row(Protocol):
    """What a recorder is told about a step after it."""

    loss: float
    clip: float
    augmentation: int


class Recorder(Protocol):
    """Sees every update; `step` surrounds exactly one, from the gradients' zeroing to the new weights."""

    def step(
        self, examples: Positions, *, label: int = -1, epoch: int = 0, ghosts: Positions | Sequence[int] = ()
    ) -> AbstractContextManager[Row]: ...


def train_steps(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    fetch: Fetch,
    batches: Batches,
    start: int,
    stop: int,
    *,
    schedule: Schedule | None = None,
    clip: float | None = None,
    augment: Augment | None = None,
    recorder: Recorder | None = None,
    ids: Positions | None = None,
    gating: Gating | None = None,
) -> list[float]:
    """Make the steps `start:stop` of a training; `model` and `optimizer` are changed in place.

    Parameters
    ----------
    schedule : factor on each group's first learning rate, by step; None leaves the rates alone
    clip : largest norm of the whole gradient
    augment : changes the inputs, ghosts too
    recorder : sees every update
    ids : (n,) int64 sample id by position, for `augment` and `recorder`; default: the positions
    gating : class-specific gates, a group of parameters of `optimizer`; it says in which epochs they take part

    Returns
    -------
    the loss of each step before its update, in nats; with gates their penalty is part of it

    Raises
    ------
    ValueError : the loss is not finite; names the step

    Notes
    -----
    Ghosts are fetched only where `model` has ghost batch norm; elsewhere they would change nothing.
    """
    model.train()
    losses = []
    ghosts_matter = has_ghost_norm(model)
    for step, epoch, batch in _steps(batches, start, stop):
        ghosts = batch.ghosts if ghosts_matter else batch.ghosts[:0]
        rows = np.concatenate([batch.examples, ghosts])
        inputs, labels = fetch(rows)
        named = rows if ids is None else ids[rows]
        if augment is not None:
            inputs = augment(inputs, named, epoch)
        gates = gating if gating is not None and gating.takes_part(epoch) else None
        labels = labels[: len(batch.examples)]
        gradient = _Gradient(model, inputs, labels, step_seed(batches.seed, step), step, clip, gates)
        if schedule is not None:
            set_rates(optimizer, schedule(step))
        with _recording(recorder, named, batch, epoch) as row:
            optimizer.step(gradient)  # type: ignore[arg-type]  # the stub wants a float
            if gates is not None:
                gates.settle()
            row.loss, row.clip = gradient.loss, gradient.factor
            if augment is not None:
                row.augmentation = batches.seed
        losses.append(gradient.loss)
    return losses


def step_seed(seed: int, step: int) -> int:
    """Return the seed of a step's own random numbers, 63 bits."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set the learning rate of each group to `factor` times its first, which it keeps as torch's schedulers do."""
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


def accuracy(model: nn.Module, fetch: Fetch, n: int, size: int = 256) -> float:
    """Return the share of samples 0..n-1 that `model` classifies rightly, in evaluation mode."""
    model.eval()
    right = 0
    with torch.inference_mode():
        for start in range(0, n, size):
            inputs, labels = fetch(np.arange(start, min(start + size, n), dtype=np.int64))
            right += int((model(inputs.clone()).argmax(1) == labels).sum())
    return right / n


@dataclass
class _Gradient:
    """The closure of one step: computes loss and gradient, as often as the optimiser asks."""

    model: nn.Module
    inputs: Tensor  # examples, then ghosts
    labels: Tensor  # of the examples
    seed: int  # of the step
    step: int
    clip: float | None
    gating: Gating | None = None  # of an epoch with gates
    loss: float = float("nan")  # before the update
    factor: float = 1.0  # of clipping, of the last gradient
    calls: int = 0

    def __call__(self) -> Tensor:
        self.model.zero_grad(set_to_none=True)
        # Only the first pass, at the step's own weights, is what running statistics should follow.
        with _frozen_statistics(self.model) if self.calls else nullcontext():
            loss = self._loss()
        if not torch.isfinite(loss):
            raise ValueError(f"the loss is {loss.item()} at step {self.step}; lower the learning rate")
        loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
        if self.clip is not None:
            self.factor = clip_gradients(self.model.parameters(), self.clip)
        if not self.calls:
            self.loss = float(loss.detach())
        self.calls += 1
        return loss

    def _loss(self) -> Tensor:
        """Return the mean cross-entropy of the batch, without its ghosts, and the gates' penalty."""
        m, ghosts = len(self.labels), len(self.inputs) - len(self.labels)
        gates = nullcontext() if self.gating is None else self.gating.closing(self.labels)
        # dropout: f(seed, step), so that any step can go on, and both passes of SAM see one network
        with seeded(self.seed, self.inputs.device), ghost_rows(self.model, m, ghosts), gates:
            logits = self.model(self.inputs.clone())  # SAM asks twice, and a network may change what it is given
            loss = F.cross_entropy(logits[:m] if ghosts else logits, self.labels)
        return loss if self.gating is None else loss + self.gating.loss()


@dataclass
class _Unread:
    """The row of a step that nobody records."""

    loss: float = float("nan")
    clip: float = 1.0
    augmentation: int = -1


def _recording(recorder: Recorder | None, named: Positions, batch: Batch, epoch: int) -> AbstractContextManager[Row]:
    """Return the context of one update; `named` are the ids of examples, then of ghosts."""
    if recorder is None:
        return nullcontext(_Unread())
    m = len(batch.examples)
    return recorder.step(named[:m], label=batch.label, epoch=epoch, ghosts=named[m:])


@contextmanager
def _frozen_statistics(model: nn.Module) -> Iterator[None]:
    """For the block, batch norm uses the batch's statistics and leaves its running ones alone."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def _steps(batches: Batches, start: int, stop: int) -> Iterator[tuple[int, int, Batch]]:
    """Yield the steps `start:stop` with their epochs and batches."""
    for epoch in range(start // batches.per_epoch, -(-stop // batches.per_epoch)):
        first = epoch * batches.per_epoch
        for step, batch in enumerate(batches.epoch(epoch), first):
            if start <= step < stop:
                yield step, epoch, batch
