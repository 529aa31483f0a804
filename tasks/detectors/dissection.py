"""What Network Dissection counts, and what follows from the counts (Bau et al. 2017)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.detectors.arrays import Doubles, Longs
from tasks.detectors.thresholds import check_quantile

RESTRICTIONS = ("image", "region", "none")


@dataclass(frozen=True, eq=False)
class Dissection:
    """Pixel counts of K units and L label numbers of C categories.

    Attributes
    ----------
    intersection : (K, L) int64, pixels in both the unit's and the label's mask; 0 for label 0
    label_area : (L,) int64; 0 for label 0
    unit_area : (K, C) int64, the unit's pixels that count for a category
    threshold : (K,) float64
    labels : (L,) int64, category index of each label number, -1 for number 0
    """

    intersection: Longs
    label_area: Longs
    unit_area: Longs
    threshold: Doubles
    labels: Longs

    @property
    def iou(self) -> Doubles:
        """Return (K, L) float64, intersection over union; 0 for label 0 and empty unions."""
        result = np.zeros(self.intersection.shape)
        real = self.labels >= 0
        areas = self.unit_area[:, self.labels[real]]
        result[:, real] = intersection_over_union(self.intersection[:, real], self.label_area[real], areas)
        return result


@dataclass(frozen=True, eq=False)
class BestLabels:
    """The labels of the largest IoU; the lowest number among equals, 0 (nothing) where the IoU is 0.

    Attributes
    ----------
    label, iou : (K,) int64, float64, over all categories
    category_label, category_iou : (K, C) int64, float64, per category
    """

    label: Longs
    iou: Doubles
    category_label: Longs
    category_iou: Doubles


def intersection_over_union(
    intersection: NDArray[Any], label_area: NDArray[Any], unit_area: NDArray[Any]
) -> Doubles:  # Any: counts
    """Divide pixel counts: intersection / (unit area + label area - intersection), 0 for an empty union.

    Parameters
    ----------
    intersection, label_area, unit_area : counts that broadcast to one shape

    Returns
    -------
    float64, 0 to 1
    """
    union = np.asarray(unit_area + label_area - intersection, dtype=np.float64)
    counts = np.broadcast_to(intersection, union.shape).astype(np.float64)
    result: Doubles = np.divide(counts, union, out=np.zeros(union.shape), where=union > 0)
    return result


def best_labels(dissection: Dissection) -> BestLabels:
    """Name each unit by its label of largest IoU, per category and over all.

    Parameters
    ----------
    dissection : counts of K units

    Returns
    -------
    BestLabels
    """
    iou, labels = dissection.iou, dissection.labels
    n_categories = dissection.unit_area.shape[1]
    by_category = [_best(iou, labels == category) for category in range(n_categories)]
    label, value = _best(iou, labels >= 0)
    empty = np.zeros((len(iou), 0))
    return BestLabels(
        label,
        value,
        np.stack([best for best, _ in by_category], axis=1) if by_category else empty.astype(np.int64),
        np.stack([best for _, best in by_category], axis=1) if by_category else empty,
    )


def passing_cover(quantile: float, iou: float) -> float:
    """Return the share of all pixels above which a label cannot reach an IoU, however good the unit is.

    Parameters
    ----------
    quantile : share of a unit's values above its threshold
    iou : smallest IoU of a detector, above 0

    Returns
    -------
    quantile / iou, at most 1. A unit covers about the share `quantile` of the pixels, so that its IoU with a label of
    the share g is at most quantile / g.
    """
    if not 0 < iou <= 1:
        raise ValueError(f"iou: expected above 0 and at most 1, found {iou!r}")
    return min(1.0, check_quantile(quantile) / iou)


def _best(iou: Doubles, allowed: NDArray[np.bool_]) -> tuple[Longs, Doubles]:
    """Return the label of the largest IoU among the allowed ones and that IoU, (K,) each."""
    numbers = np.r_[0, np.flatnonzero(allowed)]  # the IoU of number 0 is 0
    columns = iou[:, numbers]
    place = columns.argmax(axis=1)
    return numbers[place].astype(np.int64), np.take_along_axis(columns, place[:, None], axis=1)[:, 0]
