"""Mini-batches of mixed classes: an epoch is one permutation of all samples, cut into batches."""

from dataclasses import dataclass

import numpy as np

from tasks.training.batches import Batch, Positions, label_of


@dataclass(frozen=True, eq=False)
class ShuffledBatches:
    """Batches of up to `size` samples; the last of an epoch may be shorter.

    Parameters
    ----------
    labels : (n,) int64 class of every sample
    seed : seed of the run
    size : number of samples in a batch
    """

    labels: Positions
    seed: int
    size: int = 32

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"batches.size: expected at least 1, found {self.size}")

    @property
    def per_epoch(self) -> int:
        """Return the number of steps in one epoch."""
        return -(-len(self.labels) // self.size)

    @property
    def smallest(self) -> int:
        """Return the number of examples in the smallest batch of any epoch."""
        return len(self.labels) % self.size or min(self.size, len(self.labels))

    def epoch(self, epoch: int) -> list[Batch]:
        """Return the batches of an epoch; every position 0..n-1 is an example of exactly one batch."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.labels)).astype(np.int64)
        parts = (order[start : start + self.size] for start in range(0, len(order), self.size))
        return [Batch(part, label=label_of(self.labels[part])) for part in parts]

    def batch(self, step: int) -> Batch:
        """Return the batch of a step, counted from the start of the training."""
        epoch, index = divmod(step, self.per_epoch)
        return self.epoch(epoch)[index]
