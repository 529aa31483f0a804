"""What a step learns from: the samples of a batch, and the protocol of whatever says which samples make which batch."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]

MIXED = -1  # the label of a batch of several classes


def _none() -> Positions:
    """Return no positions."""
    return np.empty(0, np.int64)


@dataclass(frozen=True)
class Batch:
    """The samples of one step.

    Parameters
    ----------
    examples : (m,) int64 positions, in the order in which they enter
    ghosts : (g,) int64 positions that take part in normalisation only, often none
    label : class of all examples, -1 for several
    """

    examples: Positions
    ghosts: Positions = field(default_factory=_none)
    label: int = MIXED


class Batches(Protocol):
    """Batches as a function of (labels, seed, epoch, step), without state: any batch is computable alone."""

    @property
    def seed(self) -> int:
        """Of the run."""

    @property
    def per_epoch(self) -> int:
        """Steps in one epoch."""

    @property
    def smallest(self) -> int:
        """Examples in the smallest batch of any epoch."""

    def epoch(self, epoch: int) -> list[Batch]:
        """Return the batches of an epoch, `per_epoch` of them; every position is an example of exactly one."""

    def batch(self, step: int) -> Batch:
        """Return the batch of a step, counted from the start of the training."""


def label_of(labels: Positions) -> int:
    """Return the label that all of `labels` (m,) are, or -1."""
    return int(labels[0]) if (labels == labels[0]).all() else MIXED
