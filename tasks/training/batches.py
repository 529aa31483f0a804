"""The samples of a batch, and the protocol of the objects that divide samples into batches."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]

MIXED = -1  # the label of a batch of several classes


def _none() -> Positions:
    """Return an empty array of positions."""
    return np.empty(0, np.int64)


@dataclass(frozen=True)
class Batch:
    """The samples of one step.

    Parameters
    ----------
    examples : (m,) int64 positions, in the order of the batch
    ghosts : (g,) int64 positions of samples for normalisation only, often none
    label : class of all examples, -1 for several
    """

    examples: Positions
    ghosts: Positions = field(default_factory=_none)
    label: int = MIXED


class Batches(Protocol):
    """Batches as a function of (labels, seed, epoch, step), without state: each batch can be computed alone."""

    @property
    def seed(self) -> int:
        """Return the seed of the run."""

    @property
    def per_epoch(self) -> int:
        """Return the number of steps in one epoch."""

    @property
    def smallest(self) -> int:
        """Return the number of examples in the smallest batch of any epoch."""

    def epoch(self, epoch: int) -> list[Batch]:
        """Return the `per_epoch` batches of an epoch; every position is an example of exactly one batch."""

    def batch(self, step: int) -> Batch:
        """Return the batch of a step, counted from the start of the training."""


def label_of(labels: Positions) -> int:
    """Return the label that all of `labels` (m,) share, or -1."""
    return int(labels[0]) if (labels == labels[0]).all() else MIXED
