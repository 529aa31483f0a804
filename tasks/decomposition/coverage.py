"""The share of its images that a class's few features hold: of l1 norm, class logit and histogram."""

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tasks.decomposition.checks import (
    Doubles,
    Floats,
    Positions,
    blocks,
    check_classes,
    check_count,
    check_features,
    check_indices,
    check_matrix,
)
from tasks.decomposition.exact_sums import ExactSums


class Coverage:
    """Mean shares by class, summed chunk by chunk and mergeable; chunks and their order do not change a byte.

    Holds a few (C, 2 + len(tops)) int64, besides indices and weight.

    Parameters
    ----------
    indices : (C, k) integer, J_y of each class
    weight : (C, d) float, the head's
    tops : numbers k1; the share of an image's top-k1 features in its l1 norm is measured too

    Attributes
    ----------
    images : (C, 2 + len(tops)) int64, images with such a share; an image where the whole is 0 has none
    """

    def __init__(self, indices: NDArray[np.integer], weight: Floats, *, tops: Sequence[int] = ()) -> None:
        if getattr(weight, "ndim", 0) != 2:
            raise ValueError(f"weight: expected shape (C, d), found {getattr(weight, 'shape', type(weight).__name__)}")
        n_classes, d = weight.shape
        self.weight = check_matrix("weight", weight, (n_classes, d)).copy()
        self.indices = check_indices(indices, d, n_classes).copy()
        self.tops = tuple(check_count("tops", top, d) for top in tops)
        self.images = np.zeros((n_classes, 2 + len(self.tops)), dtype=np.int64)
        self._sums = ExactSums((n_classes, 2 + len(self.tops)))

    def update(self, features: Floats, classes: NDArray[np.integer]) -> None:
        """Add the shares of some images.

        Parameters
        ----------
        features : (m, d) float, finite
        classes : (m,) integer, 0..C-1, the class that gives each image its set
        """
        n_classes, d = self.weight.shape
        values = check_features(features, d)
        labels = check_classes("classes", classes, len(values), n_classes)
        for part in blocks(len(values), d):
            # Contiguous rows: the order within a row's sum must not depend on the chunk.
            self._add(np.ascontiguousarray(values[part], dtype=np.float64), labels[part])

    def merge(self, other: Self) -> Self:
        """Add the images of another instance, which is not changed. Returns this instance."""
        same = np.array_equal(self.indices, other.indices) and np.array_equal(self.weight, other.weight)
        if not same or self.tops != other.tops:
            raise ValueError("merge: expected the same indices, weight and tops in both")
        self.images += other.images
        self._sums.merge(other._sums)
        return self

    def l1_shares(self) -> Doubles:
        """Return the share of an image's l1 norm that J_y holds, mean by class (C,); NaN without images."""
        return self._means()[:, 0]

    def contribution_shares(self) -> Doubles:
        """Return the share of J_y in the sum of positive W[y, j] x_j, mean by class (C,); NaN without images."""
        return self._means()[:, 1]

    def top_shares(self) -> Doubles:
        """Return the share of an image's l1 norm in its top-k1 features, mean by class (C, len(tops))."""
        return self._means()[:, 2:]

    def state(self) -> dict[str, NDArray[np.int64]]:
        """Return all sums, int64 arrays by name."""
        return {"images": self.images, **self._sums.state("shares")}

    def restore(self, state: Mapping[str, NDArray[np.int64]]) -> Self:
        """Set the state of another instance with the same parameters. Returns this instance."""
        if state["images"].shape != self.images.shape:
            raise ValueError(f"state: expected images of shape {self.images.shape}, found {state['images'].shape}")
        self.images = np.array(state["images"], dtype=np.int64)
        self._sums = ExactSums.of_state("shares", state)
        return self

    def _add(self, values: Doubles, labels: Positions) -> None:
        """Add the shares of a block of images."""
        own = self.indices[labels]
        magnitudes = np.abs(values)
        helping = np.maximum(self.weight[labels] * values, 0)
        norm = magnitudes.sum(axis=1)
        falling = -np.sort(-magnitudes, axis=1)
        parts = [np.take_along_axis(magnitudes, own, axis=1), np.take_along_axis(helping, own, axis=1)]
        parts += [falling[:, :top] for top in self.tops]
        wholes = np.stack([norm, helping.sum(axis=1), *[norm] * len(self.tops)], axis=1)
        held = np.stack([part.sum(axis=1) for part in parts], axis=1)
        there = wholes > 0
        # Both sums are rounded, so a whole may be slightly below its part.
        self._sums.add(labels, np.minimum(np.divide(held, wholes, out=np.zeros_like(held), where=there), 1.0))
        np.add.at(self.images, labels, there)

    def _means(self) -> Doubles:
        """Return mean shares (C, 2 + len(tops))."""
        return _divided(self._sums.totals(), self.images)


def share_of_histogram(counts: NDArray[np.integer], indices: NDArray[np.integer]) -> Doubles:
    """Measure the share of each class's histogram that its set holds.

    Parameters
    ----------
    counts : (C, d) integer
    indices : (C, k) integer

    Returns
    -------
    (C,) float64; NaN for a class without images
    """
    chosen = check_indices(indices, counts.shape[1], len(counts))
    return _divided(np.take_along_axis(counts, chosen, axis=1).sum(axis=1), counts.sum(axis=1))


def _divided(sums: NDArray[np.generic], numbers: NDArray[np.integer]) -> Doubles:
    """Return quotients in float64, NaN where the number is 0."""
    empty = np.full(sums.shape, np.nan)
    quotients: Doubles = np.divide(sums, numbers, out=empty, where=numbers > 0)
    return quotients
