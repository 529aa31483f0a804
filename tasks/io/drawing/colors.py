"""Colours to paint with, and the colour name of a pixel."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from tasks.io.drawing.labels import NUMBERS

Color = tuple[int, int, int]
PAINTS: tuple[Color, ...] = (
    *((205, 40, 40), (232, 128, 32), (240, 208, 48), (60, 160, 70), (50, 100, 210), (130, 70, 180)),
    *((236, 130, 180), (128, 80, 44), (40, 40, 46), (238, 238, 236), (140, 142, 146), (70, 180, 200)),
    *((150, 30, 60), (170, 205, 80), (30, 60, 120)),
)
BLACK, WHITE, GREY, GLASS = (34, 34, 38), (244, 244, 242), (150, 152, 156), (170, 214, 236)
BROWNS: tuple[Color, ...] = ((110, 70, 40), (88, 58, 36), (136, 92, 52))
LEAVES: tuple[Color, ...] = ((46, 130, 56), (84, 160, 60), (34, 104, 64), (206, 120, 40), (196, 60, 44))
SKINS: tuple[Color, ...] = ((244, 206, 176), (204, 150, 112), (130, 86, 60))
_HUES = (  # first degree of each colour's hues
    *((0, "red"), (14, "orange"), (42, "yellow"), (68, "green"), (165, "blue"), (260, "purple"), (295, "pink")),
    (345, "red"),
)


def color_numbers(pixels: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Return the label number of the colour of each pixel (..., 3)."""
    red, green, blue = np.moveaxis(pixels.astype(np.int32) >> 3, -1, 0)
    numbers: NDArray[np.int32] = _table()[red << 10 | green << 5 | blue]
    return numbers


@cache
def _table() -> NDArray[np.int32]:
    """Return the label number of the colour of each of the 32 x 32 x 32 cells of the colour cube."""
    cube = np.stack(np.meshgrid(*[np.arange(32) * 8 + 4] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    red, green, blue = cube.T
    value, spread = cube.max(axis=1), np.ptp(cube, axis=1)
    safe = np.maximum(spread, 1)
    hue = np.where(
        value == red,
        60 * (green - blue) // safe,
        np.where(value == green, 120 + 60 * (blue - red) // safe, 240 + 60 * (red - green) // safe),
    )
    starts = np.array([start for start, _ in _HUES])
    name = np.array([NUMBERS[color, "color"] for _, color in _HUES])
    found = name[np.searchsorted(starts, hue % 360, side="right") - 1]
    warm = np.isin(found, [NUMBERS[color, "color"] for color in ("red", "orange")])
    found[warm & (value < 168) & ((hue % 360 >= 8) & (hue % 360 < 60))] = NUMBERS["brown", "color"]
    found[warm & (value < 110) & (spread * 100 < 70 * value)] = NUMBERS["brown", "color"]
    found[(found == NUMBERS["red", "color"]) & (value > 190) & (spread * 2 < value)] = NUMBERS["pink", "color"]
    grey = spread * 100 < 16 * value
    found[grey] = NUMBERS["grey", "color"]
    found[grey & (value > 208)] = NUMBERS["white", "color"]
    found[value < 56] = NUMBERS["black", "color"]
    numbers: NDArray[np.int32] = found.astype(np.int32)
    return numbers
