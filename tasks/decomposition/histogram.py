"""Algorithm 1 of Badola et al. in one pass: how often each feature is in the top-k1 of a class's images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from tasks.decomposition.checks import Doubles, Floats, Positions, blocks, check_classes, check_count, check_features
from tasks.decomposition.checks import check_matrix as check_weight
from tasks.decomposition.exact_sums import ExactSums
from tasks.decomposition.ranking import RANKINGS, RankBy, count_covering, rank_features, score_features


@dataclass(frozen=True)
class Cell:
    """One setting of the count.

    Attributes
    ----------
    k1 : an int counts that many features per image; a float in (0, 1] counts the fewest features, by falling rank,
        that hold this share of the image's l1 norm; none in an image of zeros
    """

    k1: int | float

    def __post_init__(self) -> None:
        if isinstance(self.k1, float | np.floating):
            if not 0 < self.k1 <= 1:
                raise ValueError(f"k1: expected a count, or a share with 0 < share <= 1, found {self.k1!r}")
        else:
            check_count("k1", self.k1)

    @property
    def is_share(self) -> bool:
        """Return whether k1 is a share of the l1 norm."""
        return isinstance(self.k1, float | np.floating)


class FeatureMoments(NamedTuple):
    """Mean and standard deviation (divided by n) of every feature over all images, (d,) float64 each."""

    mean: Doubles
    std: Doubles


class FeatureHistogram:
    """Counts of top-k1 features and sums by class, added chunk by chunk and mergeable.

    Chunks, their order and the order of merging do not change a byte: counts are integers and sums are exact. Only
    reading rounds a sum. Holds (cells, C, d) and about 4 (C, d) int64, twice that for signed features.

    Parameters
    ----------
    n_classes, n_features : C, d
    cells : settings of the counts; one pass over the features serves all
    rank_by : "abs", "value" or "contribution"
    weight : (C, d) float, the head's, for "contribution"

    Attributes
    ----------
    counts : (cells, C, d) int64, images of a class with a feature in their top-k1
    images : (C,) int64, images of each class
    """

    def __init__(
        self,
        n_classes: int,
        n_features: int,
        cells: Sequence[Cell],
        *,
        rank_by: RankBy = "abs",
        weight: Floats | None = None,
    ) -> None:
        self.cells = tuple(cells)
        self.rank_by = _check_rank_by(rank_by)
        self.weight = None if rank_by != "contribution" else _check_given(weight, (n_classes, n_features))
        self._depth = max((_depth(cell, n_features) for cell in self.cells), default=0)
        self.counts = np.zeros((len(self.cells), n_classes, n_features), dtype=np.int64)
        self.images = np.zeros(n_classes, dtype=np.int64)
        self._positive, self._negative = ExactSums((n_classes, n_features)), ExactSums((n_classes, n_features))
        self._squares = ExactSums((1, n_features))

    def update(self, features: Floats, classes: NDArray[np.integer]) -> None:
        """Add some images to counts and sums.

        Parameters
        ----------
        features : (m, d) float of any width, finite
        classes : (m,) integer, 0..C-1: labels, or predictions for sets without labels
        """
        _, n_classes, d = self.counts.shape
        values = check_features(features, d)
        labels = check_classes("classes", classes, len(values), n_classes)
        for part in blocks(len(values), d):
            self._count(values[part], labels[part])
            self._sum(values[part].astype(np.float64), labels[part])

    def merge(self, other: Self) -> Self:
        """Add the images of another instance, which is not changed. Returns this instance."""
        if self._meaning() != other._meaning():
            raise ValueError(f"merge: expected the same {self._meaning()}, found {other._meaning()}")
        if self.weight is not None and other.weight is not None and not np.array_equal(self.weight, other.weight):
            raise ValueError("merge: expected the same weight in both")
        self.counts += other.counts
        self.images += other.images
        self._positive.merge(other._positive)
        self._negative.merge(other._negative)
        self._squares.merge(other._squares)
        return self

    @property
    def signed(self) -> bool:
        """Return whether some value is below 0."""
        return bool(self._negative.digits)

    def absolute_sums(self) -> Doubles:
        """Return the sums of |x| by class, (C, d) float64."""
        return self._positive.copy().merge(self._negative).totals()

    def signed_sums(self) -> Doubles:
        """Return the sums of x by class, (C, d) float64."""
        return self._positive.copy().merge(self._negative, -1).totals()

    def class_means(self) -> Doubles:
        """Return the mean of x by class, (C, d) float64; zeros for a class without images."""
        return self.signed_sums() / np.maximum(self.images, 1)[:, None]

    def moments(self) -> FeatureMoments:
        """Return the moments of the features over all images, exact before the last rounding (float32)."""
        n = int(self.images.sum())
        if n == 0:
            raise ValueError("moments: expected at least 1 image, found 0")
        sums = self._positive.copy().merge(self._negative, -1).of_columns()
        spreads = [n * square - total**2 for square, total in zip(self._squares.of_columns(), sums, strict=True)]
        mean = np.array([float(total / n) for total in sums])
        return FeatureMoments(mean, np.sqrt([max(0.0, float(spread / n**2)) for spread in spreads]))

    def state(self) -> dict[str, NDArray[np.int64]]:
        """Return all counts and sums, int64 arrays by name; the same images give the same bytes."""
        found = {"counts": self.counts, "images": self.images}
        sums = {"positive": self._positive, "negative": self._negative, "squares": self._squares}
        return found | {key: array for name, one in sums.items() for key, array in one.state(name).items()}

    @classmethod
    def of_state(
        cls,
        cells: Sequence[Cell],
        state: Mapping[str, NDArray[np.int64]],
        *,
        rank_by: RankBy = "abs",
        weight: Floats | None = None,
    ) -> Self:
        """Build an instance from its state; they do not share memory.

        Parameters
        ----------
        cells, rank_by, weight : the parameters of the first instance
        state : as `state` returned it
        """
        n_cells, n_classes, d = state["counts"].shape
        if n_cells != len(cells):
            raise ValueError(f"state: expected {len(cells)} cells, found {n_cells}")
        histogram = cls(n_classes, d, cells, rank_by=rank_by, weight=weight)
        for name in ("counts", "images"):
            setattr(histogram, name, np.array(state[name], dtype=np.int64))
        for name in ("positive", "negative", "squares"):
            setattr(histogram, f"_{name}", ExactSums.of_state(name, state))
        return histogram

    def _count(self, values: Floats, labels: Positions) -> None:
        """Count the top features of a block of images for every cell."""
        if not self.cells:
            return
        d = self.counts.shape[2]
        order = rank_features(score_features(values, labels, self.rank_by, self.weight), self._depth)
        places = labels[:, None] * d + order
        for i, cell in enumerate(self.cells):
            if cell.is_share:
                found = places[np.arange(d) < count_covering(values, order, float(cell.k1))[:, None]]
            else:
                found = places[:, : int(cell.k1)].reshape(-1)
            np.add.at(self.counts[i].reshape(-1), found, 1)

    def _sum(self, values: Doubles, labels: Positions) -> None:
        """Add a block of images to the sums."""
        self.images += np.bincount(labels, minlength=len(self.images))
        self._positive.add(labels, np.maximum(values, 0))
        if (values < 0).any():
            self._negative.add(labels, np.maximum(-values, 0))
        self._squares.add(np.zeros_like(labels), np.square(values))

    def _meaning(self) -> dict[str, Any]:  # Any: shown and compared only
        """Return the parameters that two merged instances must share; as text, since k1 = 1 is not k1 = 1.0."""
        return {"shape": self.counts.shape, "cells": repr(self.cells), "rank_by": self.rank_by}


def _depth(cell: Cell, n_features: int) -> int:
    """Return the number of ranks that a cell needs."""
    return n_features if cell.is_share else check_count("k1", int(cell.k1), n_features)


def _check_rank_by(rank_by: RankBy) -> RankBy:
    """Check the name of a ranking."""
    if rank_by not in RANKINGS:
        raise ValueError(f"rank_by: expected one of {', '.join(RANKINGS)}, found {rank_by!r}")
    return rank_by


def _check_given(weight: Floats | None, shape: tuple[int, int]) -> Doubles:
    """Check the head's weight, which contributions need."""
    if weight is None:
        raise ValueError("weight: expected the head's (C, d), which rank_by 'contribution' needs, found None")
    return check_weight("weight", weight, shape).copy()
