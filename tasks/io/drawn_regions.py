"""Regions of drawn images with captions that follow from their label maps, for a captioner without other data.

Each label of an image is a region with two captions: its name alone, and its name with what the label maps say of most
of its pixels, such as "red striped ball". Regions of one name differ in the rest, so that a captioner learns to name
what all regions of a neuron share.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from tasks.io.drawing.labels import CATEGORIES, PAIRS
from tasks.io.mini_broden import draw
from tasks.io.regions import Region

VERSION = 1  # of the captions, a part of stage keys
DRAWINGS = 2**41  # first seed of the images, which keeps them apart from those of probing sets and dual encoders
SMALLEST = 0.01  # share of the pixels of a region
MOST = 0.6  # share of a region's pixels from which a label holds for the region
SURFACES = ("color", "texture", "material")  # what a caption says before the name, in this order


@dataclass(frozen=True)
class DrawnRegions:
    """Regions of `count` drawn images of mini-Broden."""

    count: int
    size: int
    seed: int

    def regions(self) -> Sequence[Region]:
        """Return the regions of all images, twice each; a mask's name is the number of its label."""
        return self._regions

    def image(self, name: str) -> NDArray[np.uint8]:
        """Return an image (size, size, 3)."""
        return self._draw(name)[0]

    def mask(self, region: Region) -> NDArray[np.bool_]:
        """Return the mask (size, size) of a region."""
        found: NDArray[np.bool_] = (self._draw(region.image)[1] == int(region.mask)).any(axis=0)
        return found

    @cached_property
    def _regions(self) -> tuple[Region, ...]:
        """Return the regions of all images."""
        return tuple(region for index in range(self.count) for region in self._of_image(str(index)))

    def _of_image(self, name: str) -> Iterator[Region]:
        """Yield the regions of an image."""
        planes = self._draw(name)[1]
        for number in np.setdiff1d(planes, [0]).tolist():
            mask = (planes == number).any(axis=0)
            if mask.mean() >= SMALLEST:
                for caption in dict.fromkeys((PAIRS[number - 1][0], described(planes, mask, number))):
                    yield Region(name, str(number), caption, name)

    def _draw(self, name: str) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Return an image and its label maps."""
        return _drawn(DRAWINGS + self.seed, int(name), self.size)


def described(planes: NDArray[np.int32], mask: NDArray[np.bool_], number: int) -> str:
    """Return the name of a region with the labels that hold for most of it.

    Parameters
    ----------
    planes : (6, H, W) label maps of an image, a plane for each category
    mask : (H, W), the region
    number : its label

    Returns
    -------
    colour, texture and material before the name; a part is "of" its object. A scene has its name alone
    """
    name, category = PAIRS[number - 1]
    if category == "scene":
        return name
    before = [
        held for surface in SURFACES if surface != category and (held := _held(planes[CATEGORIES.index(surface)], mask))
    ]
    owner = _held(planes[CATEGORIES.index("object")], mask) if category in ("part", *SURFACES) else ""
    return " ".join((*before, name, *((("of", owner) if category == "part" else (owner,)) if owner else ())))


def _held(plane: NDArray[np.int32], mask: NDArray[np.bool_]) -> str:
    """Return the name of the label that most pixels of a region have, "" for none."""
    counts = np.bincount(plane[mask])
    counts[0] = 0
    number = int(counts.argmax())
    return PAIRS[number - 1][0] if counts[number] > MOST * mask.sum() else ""


@lru_cache(maxsize=256)
def _drawn(seed: int, index: int, size: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Return a drawn image and its label maps, which this process caches."""
    return draw(seed, index, size)
