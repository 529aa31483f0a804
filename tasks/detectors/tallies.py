"""Integer tallies of Network Dissection over chunks of images."""

from collections.abc import Mapping
from typing import Self

import numpy as np

from tasks.detectors.arrays import Doubles, Floats, Integers, Longs, check_labels, check_masks, check_values
from tasks.detectors.bits import Bits, area, overlaps, pack
from tasks.detectors.dissection import RESTRICTIONS, Dissection
from tasks.detectors.enlarged import enlarged_masks

COUNTS = ("intersection", "label_area", "unit_area", "mask_size")


class Tallies:
    """Pixel counts of units and labels, exact and additive over images.

    Picklable. Holds (K, L) int64.

    Parameters
    ----------
    labels : (L,) integer, category index of each label number, -1 for number 0
    threshold : (K,) float, of each unit; infinite for a unit that is never on
    category_restriction : which of a unit's pixels count for a category: those of "image"s that contain the category,
        those of the "region" that the category's labels cover, or all ("none")
    """

    def __init__(self, labels: Integers, threshold: Floats, category_restriction: str = "image") -> None:
        if category_restriction not in RESTRICTIONS:
            raise ValueError(f"category_restriction: expected one of {RESTRICTIONS}, found {category_restriction!r}")
        self._labels, self._restriction = check_labels(labels), category_restriction
        self._threshold = _check_threshold(threshold)
        n_units, n_labels, n_categories = len(threshold), len(labels), int(self._labels.max()) + 1
        self._intersection = np.zeros((n_units, n_labels), dtype=np.int64)
        self._label_area = np.zeros(n_labels, dtype=np.int64)
        self._unit_area = np.zeros((n_units, n_categories), dtype=np.int64)
        self._size: tuple[int, int] | None = None

    @classmethod
    def of(
        cls,
        arrays: Mapping[str, Longs],
        labels: Integers,
        threshold: Floats,
        category_restriction: str = "image",
    ) -> Self:
        """Return the instance that had these `arrays`."""
        result = cls(labels, threshold, category_restriction)
        current = result.arrays()
        for name in COUNTS:
            if arrays[name].shape != current[name].shape:
                raise ValueError(f"{name}: expected shape {current[name].shape}, found {arrays[name].shape}")
            current[name][...] = arrays[name]
        height, width = arrays["mask_size"].tolist()
        result._size = (height, width) if height else None
        return result

    def update(self, maps: Floats, masks: Integers) -> Self:
        """Count the pixels of a chunk of images.

        Parameters
        ----------
        maps : (n, K, h, w) float
        masks : (n, P, H, W) integer label numbers, one plane per annotation channel, 0 nothing; one size for all chunks

        Returns
        -------
        this instance
        """
        units = check_values("maps", maps, 4)
        if units.shape[1] != len(self._threshold):
            raise ValueError(f"maps: expected {len(self._threshold)} units, one per threshold, found {units.shape[1]}")
        planes = check_masks(masks, len(units), len(self._labels), self._size)
        self._size = planes.shape[2:]
        on = units.max(axis=(2, 3)) > self._threshold  # enlarged values do not exceed their neighbours
        for image, rows in enumerate(on):
            numbers, label_bits = _label_masks(planes[image], len(self._labels))
            self._label_area[numbers] += area(label_bits)
            active = np.flatnonzero(rows)
            unit_bits = enlarged_masks(units[image, active], self._threshold[active], self._size)
            self._count(active, unit_bits, numbers, label_bits)
        return self

    def merge(self, other: Self) -> Self:
        """Add the counts of other images of the same units and labels; the other instance is not changed.

        Returns
        -------
        this instance
        """
        same = self._restriction == other._restriction and np.array_equal(self._labels, other._labels)
        if not same or not np.array_equal(self._threshold, other._threshold):
            raise ValueError("merge: expected the same labels, thresholds and restriction, found others")
        if None not in (self._size, other._size) and self._size != other._size:
            raise ValueError(f"merge: expected masks of {self._size} pixels, found {other._size}")
        self._intersection += other._intersection
        self._label_area += other._label_area
        self._unit_area += other._unit_area
        self._size = self._size or other._size
        return self

    def arrays(self) -> dict[str, Longs]:
        """Return the counts by name, int64; the size of the masks is (0, 0) before the first image."""
        size = np.array(self._size or (0, 0), dtype=np.int64)
        return dict(zip(COUNTS, (self._intersection, self._label_area, self._unit_area, size), strict=True))

    def result(self) -> Dissection:
        """Return the dissection of the images so far."""
        counts = (self._intersection.copy(), self._label_area.copy(), self._unit_area.copy())
        return Dissection(*counts, self._threshold, self._labels)

    def _count(self, active: Longs, unit_bits: Bits, numbers: Longs, label_bits: Bits) -> None:
        """Count one image's pixels of the active units: (U, words) and (labels, words)."""
        self._intersection[np.ix_(active, numbers)] += overlaps(unit_bits, label_bits)
        if self._restriction == "none":
            self._unit_area[active] += area(unit_bits)[:, None]
            return
        categories = self._labels[numbers]
        present = np.unique(categories)
        if self._restriction == "image":
            self._unit_area[np.ix_(active, present)] += area(unit_bits)[:, None]
        elif len(present):
            regions = [np.bitwise_or.reduce(label_bits[categories == category], axis=0) for category in present]
            self._unit_area[np.ix_(active, present)] += overlaps(unit_bits, np.stack(regions))


def _label_masks(planes: Integers, n_labels: int) -> tuple[Longs, Bits]:
    """Return the label numbers of an image and the mask of each, over all planes (P, H, W)."""
    packed: dict[int, Bits] = {}
    for plane in planes:
        present = np.flatnonzero(np.bincount(plane.ravel().astype(np.int64), minlength=n_labels))
        numbers = present[present > 0]
        for number, bits in zip(numbers.tolist(), pack(plane == numbers[:, None, None]), strict=True):
            packed[number] = packed[number] | bits if number in packed else bits
    empty = np.zeros((0, 0), dtype=np.uint64)
    return np.array(list(packed), dtype=np.int64), np.stack(list(packed.values())) if packed else empty


def _check_threshold(threshold: Floats) -> Doubles:
    """Check one threshold per unit."""
    if not isinstance(threshold, np.ndarray) or threshold.dtype.kind not in "fiu":
        found = getattr(threshold, "dtype", type(threshold).__name__)
        raise TypeError(f"threshold: expected a NumPy array of real numbers, found {found}")
    if threshold.ndim != 1 or not len(threshold) or np.isnan(threshold).any():
        raise ValueError(f"threshold: expected (K,) numbers, not NaN, found shape {threshold.shape}")
    return threshold.astype(np.float64)
