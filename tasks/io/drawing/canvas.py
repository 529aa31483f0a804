"""A canvas that knows the label of each pixel: shapes are painted over each other, and the last one is seen."""

import numpy as np
from numpy.typing import NDArray

from tasks.io.drawing.colors import Color, color_numbers
from tasks.io.drawing.dice import Dice
from tasks.io.drawing.labels import CATEGORIES, NUMBERS

SIDE = 1024  # units of a canvas; coordinates are in units, so that a picture does not depend on the image size
Mask = NDArray[np.bool_]
Numbers = NDArray[np.int64]


class Canvas:
    """Pixels hold the index of the paint that was put there last; a paint has a colour and labels."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.x: Numbers = ((np.arange(size, dtype=np.int64) * 2 + 1) * SIDE // (2 * size))[None, :]
        self.y: Numbers = self.x.T
        self._paint = np.zeros((size, size), dtype=np.uint8)
        self._colors: list[tuple[int, int, int, int, int]] = []  # red, green, blue, grain, slope
        self._labels: list[tuple[int, int]] = []  # of categories object and part
        self._whole: list[tuple[int, int]] = []  # plane and label number

    def fill(self, mask: Mask | None, color: Color, *, grain: int = 5, slope: int = 0) -> None:
        """Paint the pixels of a mask, or all of them, without a label.

        `grain` is the largest change of a pixel's level by noise, `slope` the change from top to bottom.
        """
        self._put(mask, (*color, grain, slope), (0, 0))

    def thing(self, mask: Mask, color: Color, *, obj: str = "", part: str = "") -> None:
        """Paint an object, a part of one, or a detached part."""
        labels = (NUMBERS[obj, "object"] if obj else 0, NUMBERS[part, "part"] if part else 0)
        self._put(mask, (*color, 6, -10), labels)

    def label_all(self, name: str, category: str) -> None:
        """Give the whole image a label."""
        self._whole.append((CATEGORIES.index(category), NUMBERS[name, category]))

    def ellipse(self, x: int, y: int, rx: int, ry: int) -> Mask:
        """Return the pixels of an ellipse."""
        rx, ry = max(rx, 1), max(ry, 1)
        return (self.x - x) ** 2 * ry**2 + (self.y - y) ** 2 * rx**2 <= (rx * ry) ** 2

    def polygon(self, *points: tuple[int, int]) -> Mask:
        """Return the pixels of a convex polygon, given in either direction."""
        edges = list(zip(points, (*points[1:], points[0]), strict=True))
        turn = 1 if sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in edges) > 0 else -1
        mask = np.ones((self.size, self.size), dtype=np.bool_)
        for (x0, y0), (x1, y1) in edges:
            mask &= turn * (x1 - x0) * (self.y - y0) >= turn * (y1 - y0) * (self.x - x0)
        return mask

    def finish(self, dice: Dice) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Return the image (size, size, 3) uint8 and the planes (categories, size, size) int32."""
        colors = np.array(self._colors, dtype=np.int32)[self._paint]
        grain, slope = colors[..., 3], colors[..., 4]
        shade = (dice.noise(self.size, self.size) - 128) * grain // 128 + slope * self.y // SIDE
        pixels = np.clip(colors[..., :3] + shade[..., None], 0, 255).astype(np.uint8)
        planes = np.zeros((len(CATEGORIES), self.size, self.size), dtype=np.int32)
        planes[:2] = np.moveaxis(np.array(self._labels, dtype=np.int32)[self._paint], -1, 0)
        for plane, number in self._whole:
            planes[plane] = number
        planes[CATEGORIES.index("color")] = color_numbers(pixels)
        return pixels, planes

    def _put(self, mask: Mask | None, color: tuple[int, int, int, int, int], labels: tuple[int, int]) -> None:
        """Put a new paint on the pixels of a mask."""
        np.copyto(self._paint, len(self._colors), where=True if mask is None else mask)
        self._colors.append(color)
        self._labels.append(labels)
