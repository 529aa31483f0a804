"""Batches of one example (Pfahler & Morik 2022, Algorithm 1): an update belongs to that example alone."""

from dataclasses import dataclass

import numpy as np

from tasks.training.batches import Batch, Positions


@dataclass(frozen=True, eq=False)
class SingleExampleBatches:
    """Batches of one sample each; an epoch is one permutation of all samples.

    Parameters
    ----------
    labels : (n,) int64 class of every sample
    seed : seed of the run
    """

    labels: Positions
    seed: int

    @property
    def per_epoch(self) -> int:
        """Return the number of steps in one epoch."""
        return len(self.labels)

    @property
    def smallest(self) -> int:
        """Return the number of examples in the smallest batch of any epoch."""
        return 1

    def epoch(self, epoch: int) -> list[Batch]:
        """Return the batches of an epoch; every position 0..n-1 is an example of exactly one batch."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.labels)).astype(np.int64)
        return [Batch(order[i : i + 1], label=int(self.labels[order[i]])) for i in range(len(order))]

    def batch(self, step: int) -> Batch:
        """Return the batch of a step, counted from the start of the training."""
        epoch, index = divmod(step, self.per_epoch)
        return self.epoch(epoch)[index]
