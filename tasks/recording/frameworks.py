"""Recording of a training that a framework runs, by hooks around its micro-batches.

The framework restores its own state. Steps before the archive's next one are made without recording. Then the recorder
compares the weights with those of the archive, so that it goes on only where the training is the same.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from storage.stores import StoreError
from tasks.recording.checkpoints import load_checkpoint, pack_checkpoint
from tasks.recording.generators import generator_states, restore_generators
from tasks.recording.given import Ids, ids_of
from tasks.recording.programs import Row
from tasks.recording.recorder import UpdateRecorder

IDS = "ids"  # key of a batch with the sample ids
NO_IDS = f"expected sample ids under the key {IDS!r}, found none; wrap the data set: WithIds(dataset, ids)"
LEAST, MOST = 50, 1000  # steps between two checkpoints that follow those of a framework

Batch = Any  # Any: what a user's data set yields
GetIds = Callable[[Batch], Ids]


class WithIds(torch.utils.data.Dataset[Any]):  # Any: as the data set
    """A data set with the id of each sample: under the key `ids` of a mapping, for tuples of one more entry.

    Parameters
    ----------
    dataset : yields tuples or mappings
    ids : id of each sample; default 0, 1, ...
    """

    def __init__(self, dataset: Any, ids: Sequence[int] | None = None) -> None:  # Any: torch's data sets are untyped
        self._dataset, self._ids = dataset, range(len(dataset)) if ids is None else ids
        if len(self._ids) != len(dataset):
            raise ValueError(f"ids: expected {len(dataset)}, one a sample, found {len(self._ids)}")

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Any:  # Any: as the data set
        sample, number = self._dataset[index], int(self._ids[index])
        return {**sample, IDS: number} if isinstance(sample, Mapping) else (*sample, {IDS: number})


def batch_ids(batch: Batch) -> Ids:
    """Return the sample ids of a batch of `WithIds`."""
    last = batch[-1] if isinstance(batch, list | tuple) and batch else batch
    if not isinstance(last, Mapping) or IDS not in last:
        raise ValueError(f"batch: {NO_IDS}")
    found: Ids = last[IDS]
    return found


class LoopRecorder:
    """An `UpdateRecorder` for a framework's hooks.

    Parameters
    ----------
    store : folder or URL of the archive's store
    settings : of `UpdateRecorder`
    """

    def __init__(self, store: "str | os.PathLike[str]", settings: Mapping[str, Any]) -> None:  # Any: of each setting
        self._store, self._settings = store, settings
        self._held, self._block = ExitStack(), ExitStack()
        self._recorder: UpdateRecorder | None = None
        self._row: Row | None = None
        self._losses: list[tuple[float, int]] = []
        self._made = 0

    def open(self, model: nn.Module, optimizer: torch.optim.Optimizer, made: int, interval: int | None) -> None:
        """Begin or resume the archive; the training's state stays as the framework restored it.

        Parameters
        ----------
        made : updates that the training has made
        interval : updates between two checkpoints of the framework, None where unknown

        Raises
        ------
        StoreError : the archive ends before the training's present step; and the errors of `UpdateRecorder`
        """
        self.abandon()
        state, random = pack_checkpoint(model, optimizer, generators=False), generator_states(model)
        settings = {"checkpoint_every": _divisor(interval), **self._settings}
        recorder = self._held.enter_context(UpdateRecorder(model, optimizer, self._store, **settings))
        if made > recorder.first_step:
            self.abandon()
            raise StoreError(
                f"{self._store}: expected a training at step {recorder.first_step} or before, where the archive goes "
                f"on, found one at step {made}; resume from an earlier checkpoint, or begin again"
            )
        load_checkpoint(state, model, optimizer, "training")
        if made < recorder.first_step:
            restore_generators(random)
        self._recorder, self._made = recorder, made

    def add(self, ids: Ids, epoch: int) -> None:
        """Take the samples of a micro-batch, before its forward pass; the first one of an update opens its block."""
        if self._recorder is None or self._made < self._recorder.first_step:
            return
        if self._row is None:
            self._row = self._block.enter_context(self._recorder.step(ids, epoch=epoch))
        else:
            self._row.examples = np.concatenate([self._row.examples, ids_of("ids", ids)])

    def lost(self, loss: object, count: int) -> None:
        """Take the mean loss of a micro-batch of `count` samples."""
        if isinstance(loss, Tensor) and loss.numel() == 1:
            self._losses.append((float(loss.detach()), count))

    def end(self) -> None:
        """End an update."""
        self._made += 1
        row, self._row = self._row, None
        if row is not None:
            counts = [count for _, count in self._losses]
            row.loss = np.average([loss for loss, _ in self._losses], weights=counts) if counts else float("nan")
            self._block.close()
        self._losses = []

    def close(self) -> None:
        """Finish the archive."""
        if self._recorder is not None and self._made < self._recorder.first_step:
            first = self._recorder.first_step
            self.abandon()
            raise StoreError(
                f"{self._store}: expected a training of at least {first} steps, as in the archive, found {self._made}; "
                "train longer"
            )
        self._recorder = None
        self._held.close()

    def abandon(self) -> None:
        """Release the archive unfinished; a new training goes on with it."""
        error = RuntimeError("the training ended early")
        for stack in (self._block, self._held):
            with suppress(RuntimeError):
                stack.__exit__(RuntimeError, error, None)
        self._recorder = self._row = None
        self._losses = []


def _divisor(interval: int | None) -> int | None:
    """Return the longest suitable part of an interval, so that an archive can go on at each of its ends."""
    parts = [n for n in range(LEAST, MOST + 1) if interval and interval % n == 0]
    return max(parts) if parts else (interval if interval and interval < LEAST else None)
