"""Image-wide textures and materials of mini-Broden, its cards."""

from collections.abc import Callable

import numpy as np

from tasks.io.drawing.canvas import SIDE, Canvas, Mask, Numbers
from tasks.io.drawing.colors import BROWNS, PAINTS, Color
from tasks.io.drawing.dice import Dice

_TURNS = ((1, 0, 1), (0, 1, 1), (3, 4, 5), (4, -3, 5), (4, 3, 5), (3, -4, 5), (5, 12, 13), (12, -5, 13))  # x, y, norm
_N_POINTS = 18


def draw_surface(name: str, category: str, canvas: Canvas, dice: Dice) -> None:
    """Paint a texture or a material over the whole canvas and label it."""
    if category == "material":
        MATERIALS[name](canvas, dice)
    else:
        first = dice.below(len(PAINTS))
        second = (first + 1 + dice.below(len(PAINTS) - 1)) % len(PAINTS)
        canvas.fill(None, PAINTS[first], grain=8)
        canvas.fill(TEXTURES[name](canvas, dice), PAINTS[second], grain=8)
    canvas.label_all(name, category)


def _turned(canvas: Canvas, dice: Dice) -> tuple[Numbers, Numbers]:
    """Return coordinates along two axes of a random direction, from a random origin."""
    a, b, norm = dice.choice(_TURNS)
    x, y = canvas.x + dice.below(SIDE), canvas.y + dice.below(SIDE)
    return (a * x + b * y) // norm, (a * y - b * x) // norm


def _smooth(canvas: Canvas, dice: Dice, across: int, down: int) -> Numbers:
    """Return smooth noise, 0..255: random levels at the corners of cells, linear between them."""
    levels: Numbers = dice.noise(down + 1, across + 1).astype(np.int64)
    i, fy = canvas.y * down // SIDE, canvas.y * down % SIDE
    j, fx = canvas.x * across // SIDE, canvas.x * across % SIDE
    upper: Numbers = levels[i, j] * (SIDE - fx) + levels[i, j + 1] * fx
    lower: Numbers = levels[i + 1, j] * (SIDE - fx) + levels[i + 1, j + 1] * fx
    mixed: Numbers = (upper * (SIDE - fy) + lower * fy) >> 20  # SIDE * SIDE
    return mixed


def _cells(canvas: Canvas, dice: Dice) -> tuple[Numbers, Numbers]:
    """Return the nearest of random points, and how much farther the second nearest is, in units."""
    points = np.array([(dice.below(SIDE), dice.below(SIDE)) for _ in range(_N_POINTS)], dtype=np.int64)
    squares = (canvas.x - points[:, :1, None]) ** 2 + (canvas.y - points[:, 1:, None]) ** 2
    # IEEE 754 prescribes the rounding of a square root, so that it is the same on every machine.
    first, second = np.sqrt(np.partition(squares, 1, axis=0)[:2].astype(np.float64))
    gap: Numbers = (second - first).astype(np.int64)
    return squares.argmin(axis=0), gap


def _even(numbers: Numbers) -> Mask:
    """Return where numbers are even."""
    mask: Mask = numbers % 2 == 0
    return mask


def _striped(canvas: Canvas, dice: Dice) -> Mask:
    along, _ = _turned(canvas, dice)
    return _even(along // dice.between(60, 130))


def _dotted(canvas: Canvas, dice: Dice) -> Mask:
    period = dice.between(170, 270)
    u, v = (axis % period - period // 2 for axis in _turned(canvas, dice))
    return u**2 + v**2 < (period * 3 // 10) ** 2


def _chequered(canvas: Canvas, dice: Dice) -> Mask:
    period = dice.between(90, 180)
    u, v = _turned(canvas, dice)
    return _even(u // period + v // period)


def _grid(canvas: Canvas, dice: Dice) -> Mask:
    period = dice.between(150, 250)
    u, v = _turned(canvas, dice)
    return (u % period < 36) | (v % period < 36)


def _zigzagged(canvas: Canvas, dice: Dice) -> Mask:
    u, v = _turned(canvas, dice)
    period = dice.between(180, 300)
    return _even((v + abs(u % period - period // 2)) // dice.between(60, 100))


def _cracked(canvas: Canvas, dice: Dice) -> Mask:
    _, gap = _cells(canvas, dice)
    return gap < dice.between(20, 34)


def _blotchy(canvas: Canvas, dice: Dice) -> Mask:
    cells = dice.between(5, 9)
    return _smooth(canvas, dice, cells, cells) > 140


def _brick(canvas: Canvas, dice: Dice) -> None:
    height, shift = dice.between(110, 160), dice.below(SIDE)
    y = canvas.y + shift
    row = y // height
    x = canvas.x + dice.below(SIDE) + row % 2 * height
    canvas.fill(None, dice.choice(((206, 200, 190), (120, 112, 108))), grain=12)
    whole = (y % height >= 20) & (x % (2 * height) >= 20)
    shade = (row * 7 + x // (2 * height) * 5) % 3
    for i, color in enumerate(((172, 74, 54), (150, 60, 46), (186, 90, 62))):
        canvas.fill(whole & (shade == i), color, grain=20)


def _wood(canvas: Canvas, dice: Dice) -> None:
    upright = dice.percent(50)
    across = canvas.x + 0 * canvas.y if upright else canvas.y + 0 * canvas.x
    bend = _smooth(canvas, dice, 3, 2) * 2
    color = dice.choice(((176, 126, 76), (140, 94, 54), (198, 154, 100)))
    canvas.fill(None, color, grain=10)
    darker: Color = (color[0] * 4 // 5, color[1] * 4 // 5, color[2] * 4 // 5)
    canvas.fill((across * 2 + bend * 2) % 190 < 70, darker, grain=10)
    canvas.fill(across % 340 < 18, dice.choice(BROWNS), grain=6)


def _stone(canvas: Canvas, dice: Dice) -> None:
    cell, gap = _cells(canvas, dice)
    canvas.fill(None, (70, 68, 66), grain=10)
    for i, color in enumerate(((150, 148, 142), (126, 126, 128), (172, 166, 156))):
        canvas.fill((cell % 3 == i) & (gap >= 40), color, grain=26)


def _metal(canvas: Canvas, dice: Dice) -> None:
    u, _ = _turned(canvas, dice)
    level = abs(u % 900 - 450) // 75 + dice.noise(canvas.size, 1) // 100  # brushed rows
    for i in range(9):
        tone = 104 + 17 * i
        canvas.fill(level == i, (tone - 6, tone, tone + 6), grain=5)


def _fabric(canvas: Canvas, dice: Dice) -> None:
    red, green, blue = dice.choice(PAINTS)
    thread = SIDE // 32
    canvas.fill(None, (red, green, blue), grain=14)
    light: Color = (red + (255 - red) // 3, green + (255 - green) // 3, blue + (255 - blue) // 3)
    dark: Color = (red * 2 // 3, green * 2 // 3, blue * 2 // 3)
    canvas.fill((canvas.x // thread + canvas.y // thread) % 2 == 0, light, grain=14)
    canvas.fill((canvas.x // thread % 4 == 0) & (canvas.y // thread % 2 == 0), dark, grain=14)
    canvas.fill((canvas.y // thread % 4 == 0) & (canvas.x // thread % 2 == 1), dark, grain=14)


def _water(canvas: Canvas, dice: Dice) -> None:
    waves = _smooth(canvas, dice, 4, 11)
    canvas.fill(None, dice.choice(((40, 110, 170), (30, 130, 160), (50, 90, 150))), grain=8, slope=-20)
    canvas.fill(waves > 150, (90, 164, 206), grain=8)
    canvas.fill(abs(waves - 165) < 12, (206, 232, 240), grain=6)


TEXTURES: dict[str, Callable[[Canvas, Dice], Mask]] = {
    "striped": _striped,
    "dotted": _dotted,
    "chequered": _chequered,
    "grid": _grid,
    "zigzagged": _zigzagged,
    "cracked": _cracked,
    "blotchy": _blotchy,
}
MATERIALS: dict[str, Callable[[Canvas, Dice], None]] = {
    "brick": _brick,
    "wood": _wood,
    "stone": _stone,
    "metal": _metal,
    "fabric": _fabric,
    "water": _water,
}
