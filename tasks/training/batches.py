"""Which samples make which batch: functions of (seed, epoch) without state, so that any step is computable alone."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class ShuffledBatches:
    """Every epoch is one permutation of all samples, cut into batches; the last may be shorter.

    Parameters
    ----------
    n : number of samples
    size : samples in a batch
    seed : of the run
    """

    n: int
    size: int
    seed: int

    @property
    def per_epoch(self) -> int:
        """Steps in one epoch."""
        return -(-self.n // self.size)

    def epoch(self, epoch: int) -> list[Positions]:
        """Return the batches of an epoch.

        Returns
        -------
        list of `per_epoch` arrays int64, positions 0..n-1, each once
        """
        order = np.random.default_rng([self.seed, epoch]).permutation(self.n).astype(np.int64)
        return [order[start : start + self.size] for start in range(0, self.n, self.size)]
