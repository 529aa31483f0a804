"""Mini-batches of one class with ghosts of all classes (Pfahler & Morik 2022, single-class mini-batches)."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tasks.training.batches import Batch, Positions

ORDER, MEMBERS, GHOSTS = range(3)  # streams of random numbers of an epoch, by what is drawn


@dataclass(frozen=True, eq=False)
class SingleClassBatches:
    """Each batch holds examples of one class, and ghosts stratified by class from the whole training set.

    The class of a batch is drawn in proportion to the remaining batches of each class. The batches of an epoch are
    therefore in random order. All samples are used: the last batch of a class may be shorter. Every batch has a new
    draw of ghosts without repetition. Ghosts may be among its examples.

    Parameters
    ----------
    labels : (n,) int64 class of every sample
    seed : seed of the run
    size : number of samples in a batch
    ghosts : number of ghosts of each batch; a class has its share of them, rounded up or down

    Raises
    ------
    ValueError : more ghosts than samples, or a size below 1
    """

    labels: Positions
    seed: int
    size: int = 88
    ghosts: int = 40

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"batches.size: expected at least 1, found {self.size}")
        if not 0 <= self.ghosts <= len(self.labels):
            raise ValueError(f"batches.ghosts: expected at most the {len(self.labels)} samples, found {self.ghosts}")

    @cached_property
    def members(self) -> list[Positions]:
        """Return the positions of each class with samples, by rising label."""
        order = np.argsort(self.labels, kind="stable").astype(np.int64)
        _, first = np.unique(self.labels[order], return_index=True)
        return np.split(order, first[1:])

    @cached_property
    def per_epoch(self) -> int:
        """Return the number of steps in one epoch."""
        return sum(-(-len(positions) // self.size) for positions in self.members)

    @property
    def smallest(self) -> int:
        """Return the number of examples in the smallest batch of any epoch."""
        return min(len(positions) % self.size or self.size for positions in self.members)

    def epoch(self, epoch: int) -> list[Batch]:
        """Return the batches of an epoch; every position 0..n-1 is an example of exactly one batch."""
        shuffled = [self._shuffled(epoch, place) for place in range(len(self.members))]
        return [self._batch(shuffled[place], part, epoch, k) for k, (place, part) in enumerate(self._order(epoch))]

    def batch(self, step: int) -> Batch:
        """Return the batch of a step, counted from the start of the training."""
        epoch, index = divmod(step, self.per_epoch)
        place, part = self._order(epoch)[index]
        return self._batch(self._shuffled(epoch, place), part, epoch, index)

    def _order(self, epoch: int) -> list[tuple[int, int]]:
        """Return, for every batch of an epoch, the index of its class in `members` and its index in the class."""
        n_batches = [-(-len(positions) // self.size) for positions in self.members]
        drawn = self._rng(epoch, ORDER).permutation(np.repeat(np.arange(len(n_batches)), n_batches))
        seen = [0] * len(n_batches)
        order = []
        for place in drawn.tolist():
            order.append((place, seen[place]))
            seen[place] += 1
        return order

    def _shuffled(self, epoch: int, place: int) -> Positions:
        """Return the positions of a class in their order in an epoch."""
        return self._rng(epoch, MEMBERS, place).permutation(self.members[place])

    def _batch(self, shuffled: Positions, part: int, epoch: int, index: int) -> Batch:
        """Return the `part`-th batch of a class, which is the `index`-th of the epoch."""
        examples = shuffled[part * self.size : (part + 1) * self.size]
        return Batch(examples, self._ghosts(self._rng(epoch, GHOSTS, index)), int(self.labels[examples[0]]))

    def _ghosts(self, rng: np.random.Generator) -> Positions:
        """Draw ghosts by systematic sampling: each class's share is rounded up or down at random, without bias."""
        if not self.ghosts:
            return np.empty(0, np.int64)
        n, places = len(self.labels), rng.permutation(len(self.members))
        ends = np.cumsum([0, *(len(self.members[place]) for place in places)])
        counts = np.diff((self.ghosts * ends + rng.integers(n)) // n)  # integers, so that the sum is exact
        drawn = [
            rng.choice(self.members[place], count, replace=False)
            for place, count in zip(places, counts.tolist(), strict=True)
            if count
        ]
        return np.concatenate(drawn)

    def _rng(self, epoch: int, *stream: int) -> np.random.Generator:
        """Return the generator of one stream of an epoch."""
        return np.random.default_rng([self.seed, epoch, *stream])
