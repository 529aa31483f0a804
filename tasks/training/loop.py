"""The training loop, one range of steps at a time: a run can stop and go on after any step."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from tasks.io.randomness import seeded
from tasks.modules.vocabulary import answers
from tasks.training.batches import Batch, Batches, Positions
from tasks.training.clipping import clip_gradients
from tasks.training.companions import Companion
from tasks.training.ghost_norm import ghost_rows, has_ghost_norm
from tasks.training.schedules import Schedule
from tasks.training.step_seeds import step_seed

Fetch = Callable[[Positions], tuple[Tensor, Tensor]]  # positions -> inputs (n, ...) float32, labels (n,) int64
Augment = Callable[[Tensor, Positions, int], Tensor]  # inputs (n, ...), sample ids (n,) int64, epoch -> inputs


class Row(Protocol):
    """The facts of a step that the loop gives a recorder after the step."""

    loss: float
    clip: float
    augmentation: int


class Recorder(Protocol):
    """An object that records every update; `step` surrounds one, from zeroed gradients to new weights."""

    def step(
        self, examples: Positions, *, label: int = -1, epoch: int = 0, ghosts: Positions | Sequence[int] = ()
    ) -> AbstractContextManager[Row]: ...


@dataclass(frozen=True)
class Samples:
    """The data of a training.

    Attributes
    ----------
    fetch : returns inputs and labels by position
    batches : the positions of each step
    ids : (n,) int64 sample id by position, for augmentation and recorder
    """

    fetch: Fetch
    batches: Batches
    ids: Positions


@dataclass(frozen=True)
class Trainer:
    """A training that can make any range of steps; model, optimiser and companions change with every step.

    Attributes
    ----------
    schedule : factor on each group's first learning rate, by step; None keeps the rates
    clip : largest norm of the whole gradient
    augment : changes the inputs, ghosts included
    companions : take part in the steps; their parameters are groups of the optimiser
    weights : (n,) factor on the loss of each sample by position; None for 1. A batch's divisor stays its size.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    samples: Samples
    schedule: Schedule | None = None
    clip: float | None = None
    augment: Augment | None = None
    companions: tuple[Companion, ...] = ()
    weights: Tensor | None = None

    @cached_property
    def parameters(self) -> tuple[nn.Parameter, ...]:
        """Return the parameters of the model; to look for them in every step would cost as much as a small layer."""
        return tuple(self.model.parameters())

    def run(self, start: int, stop: int, recorder: Recorder | None = None) -> list[float]:
        """Make the steps `start:stop`, from the state before step `start`.

        Parameters
        ----------
        recorder : records every update

        Returns
        -------
        the loss of each step before its update, in nats, with the terms of companions

        Raises
        ------
        ValueError : the loss is not finite; the message names the step

        Notes
        -----
        Ghosts are fetched only where the model has ghost batch norm; in other models they would not change anything.
        """
        return list(self.steps(start, stop, recorder))

    def steps(self, start: int, stop: int, recorder: Recorder | None = None) -> Iterator[float]:
        """Make the steps `start:stop` one by one, and yield the loss of each, as `run` does."""
        self.model.train()
        for step, epoch, batch in _steps(self.samples.batches, start, stop):
            yield self._step(step, epoch, batch, recorder)

    def gradient(self, step: int, epoch: int, batch: Batch) -> "Gradient":
        """Return the closure of a step, with the samples of its batch."""
        ghosts = len(batch.ghosts) > 0 and has_ghost_norm(self.model)
        rows = np.concatenate([batch.examples, batch.ghosts]) if ghosts else batch.examples
        inputs, labels = self.samples.fetch(rows)
        if self.augment is not None:
            inputs = self.augment(inputs, self.samples.ids[rows], epoch)
        active = tuple(companion for companion in self.companions if companion.takes_part(epoch))
        m, seed = len(batch.examples), step_seed(self.samples.batches.seed, step)
        for companion in active:
            companion.before_step(self.samples.ids[batch.examples])
        weights = None if self.weights is None else self.weights[torch.from_numpy(batch.examples)].to(inputs)
        return Gradient(self.model, self.parameters, inputs, labels[:m], seed, step, self.clip, active, weights)

    def _step(self, step: int, epoch: int, batch: Batch, recorder: Recorder | None) -> float:
        """Make one update and return the loss before it."""
        gradient = self.gradient(step, epoch, batch)
        if self.schedule is not None:
            set_rates(self.optimizer, self.schedule(step))
        with _recording(recorder, self.samples.ids, batch, epoch, gradient) as row:
            self.optimizer.step(gradient)  # type: ignore[arg-type]  # the stub expects a float
            for companion in gradient.companions:
                companion.after_update()
            row.loss, row.clip = gradient.loss, gradient.factor
            if self.augment is not None:
                row.augmentation = self.samples.batches.seed
        return gradient.loss


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set the learning rate of each group to `factor` times its first rate, kept as by torch's schedulers."""
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


def accuracy(model: nn.Module, fetch: Fetch, n: int, size: int = 256) -> float:
    """Return the share of samples 0..n-1 that `model` classifies correctly, in evaluation mode."""
    model.eval()
    right = 0
    with torch.inference_mode():
        for start in range(0, n, size):
            inputs, labels = fetch(np.arange(start, min(start + size, n), dtype=np.int64))
            right += int((answers(model, inputs.clone()).argmax(1) == labels).sum())
    return right / n


@dataclass
class Gradient:
    """The closure of one step, which computes loss and gradient at every call of the optimiser."""

    model: nn.Module
    parameters: Sequence[nn.Parameter]  # of the model
    inputs: Tensor  # examples, then ghosts
    labels: Tensor  # of the examples
    seed: int  # of the step
    step: int
    clip: float | None
    companions: tuple[Companion, ...] = ()  # those that take part in this step
    weights: Tensor | None = None  # (m,) factors on the losses of the examples, None for 1
    loss: float = float("nan")  # before the update
    factor: float = 1.0  # of clipping, of the last gradient
    calls: int = 0

    def __call__(self) -> Tensor:
        for parameter in self.parameters:
            parameter.grad = None
        # Running statistics should follow only the first pass, which is at the step's weights.
        with frozen_statistics(self.model) if self.calls else nullcontext():
            loss = self.total()
        value = loss.item()
        if not math.isfinite(value):
            raise ValueError(f"step {self.step}: expected a finite loss, found {value}; lower the learning rate")
        loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
        for companion in self.companions:
            companion.after_backward()
        if self.clip is not None:
            self.factor = clip_gradients(self.parameters, self.clip)
        if not self.calls:
            self.loss = value
        self.calls += 1
        return loss

    def total(self) -> Tensor:
        """Return the mean cross-entropy of the batch without its ghosts, plus the terms of companions."""
        m, ghosts = len(self.labels), len(self.inputs) - len(self.labels)
        with ExitStack() as during:
            # dropout is a function of seed and step: any step can be resumed, and SAM's two passes use one network
            during.enter_context(seeded(self.seed, self.inputs.device))
            if ghosts:
                during.enter_context(ghost_rows(self.model, m, ghosts))
            inputs = self.inputs.clone()  # SAM makes two passes, and a network may change its inputs
            for companion in self.companions:
                during.enter_context(companion.during(self.labels))
                inputs = companion.inputs(inputs, self.labels)
            logits = self._answers(inputs)
            losses = partial(F.cross_entropy, logits[:m] if ghosts else logits, self.labels)
            loss = losses() if self.weights is None else (self.weights * losses(reduction="none")).sum() / m
        for companion in self.companions:
            loss = loss + companion.loss()
        return loss

    def _answers(self, inputs: Tensor) -> Tensor:
        """Return the logits of the model; ValueError with the step for tokens beyond a vocabulary."""
        try:
            return answers(self.model, inputs)
        except ValueError as error:
            if isinstance(error.__cause__, IndexError):
                raise ValueError(f"step {self.step}: {error}") from error
            raise


@dataclass
class _Unread:
    """The row of a step without a recorder."""

    loss: float = float("nan")
    clip: float = 1.0
    augmentation: int = -1


def _recording(
    recorder: Recorder | None, ids: Positions, batch: Batch, epoch: int, gradient: Gradient
) -> AbstractContextManager[Row]:
    """Return the recorder's context of one update; `ids` are those of all samples by position."""
    if recorder is None:
        return nullcontext(_Unread())
    ghosts = ids[batch.ghosts] if len(gradient.inputs) > len(batch.examples) else ids[:0]  # only those that took part
    return recorder.step(ids[batch.examples], label=batch.label, epoch=epoch, ghosts=ghosts)


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Make batch norm use the batch's statistics and keep its running statistics during the block."""
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
