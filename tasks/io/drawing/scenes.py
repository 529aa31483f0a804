"""The backgrounds of mini-Broden's scenes."""

from collections.abc import Callable

from tasks.io.drawing.canvas import SIDE, Canvas
from tasks.io.drawing.colors import BLACK, WHITE, Color
from tasks.io.drawing.dice import Dice

_SKIES: tuple[Color, ...] = ((150, 200, 240), (120, 176, 232), (188, 214, 236))


def draw_scene(name: str, canvas: Canvas, dice: Dice) -> None:
    """Paint a background over the whole canvas and label it."""
    SCENES[name](canvas, dice, dice.between(430, 600))
    canvas.label_all(name, "scene")


def _below(canvas: Canvas, y: int, color: Color, grain: int = 10, slope: int = -20) -> None:
    """Paint everything below a height."""
    canvas.fill((canvas.y >= y) & (canvas.x >= 0), color, grain=grain, slope=slope)


def _beach(canvas: Canvas, dice: Dice, horizon: int) -> None:
    canvas.fill(None, dice.choice(_SKIES), slope=30)
    _below(canvas, horizon, (40, 120, 180), 14)
    shore = horizon + dice.between(110, 200)
    canvas.fill(canvas.ellipse(dice.below(SIDE), shore + 700, 1500, 700), (232, 212, 160), grain=16)


def _desert(canvas: Canvas, dice: Dice, horizon: int) -> None:
    canvas.fill(None, dice.choice(((246, 214, 150), (240, 190, 130), (160, 200, 230))), slope=20)
    for color in ((222, 160, 84), (206, 138, 64), (188, 118, 52)):
        canvas.fill(canvas.ellipse(dice.below(SIDE), horizon + 500, dice.between(700, 1100), 500), color, grain=12)
        horizon += 120


def _forest(canvas: Canvas, dice: Dice, horizon: int) -> None:
    canvas.fill(None, (60, 100, 70), slope=-20)
    for color in ((52, 110, 60), (38, 90, 50), (28, 70, 42)):
        for x in range(0, SIDE + 1, 256):
            top = dice.between(horizon - 360, horizon - 120)
            canvas.fill(canvas.ellipse(x + dice.below(200) - 100, top + 260, 190, 280), color, grain=22)
    _below(canvas, horizon, (74, 66, 40), 20)


def _meadow(canvas: Canvas, dice: Dice, horizon: int) -> None:
    canvas.fill(None, dice.choice(_SKIES), slope=30)
    canvas.fill(canvas.ellipse(dice.below(SIDE), horizon + 360, 640, 420), (110, 180, 90), grain=12)
    _below(canvas, horizon + 40, (124, 196, 76), 20)


def _mountain(canvas: Canvas, dice: Dice, horizon: int) -> None:
    canvas.fill(None, dice.choice(_SKIES), slope=20)
    for color in ((128, 134, 150), (98, 104, 120)):
        x, top = dice.below(SIDE), horizon - dice.between(260, 420)
        canvas.fill(canvas.polygon((x - 520, horizon + 80), (x, top), (x + 520, horizon + 80)), color, grain=12)
        canvas.fill(canvas.polygon((x - 130, top + 100), (x, top), (x + 130, top + 100)), WHITE)
    _below(canvas, horizon + 60, (104, 120, 92), 16)


def _night(canvas: Canvas, dice: Dice, horizon: int) -> None:
    canvas.fill(None, (16, 22, 64), slope=30)
    for _ in range(9):
        x, y = dice.below(SIDE), dice.below(horizon)
        canvas.fill(canvas.ellipse(x, y, 11, 11), (226, 226, 210))
    canvas.fill(canvas.ellipse(dice.below(SIDE), dice.between(100, 260), 90, 90), (238, 234, 206))
    _below(canvas, horizon + 140, (20, 24, 34), 8)


def _room(canvas: Canvas, dice: Dice, horizon: int) -> None:
    canvas.fill(None, dice.choice(((236, 222, 200), (206, 220, 210), (214, 206, 226), (230, 206, 206))), slope=-16)
    _below(canvas, horizon + 150, dice.choice(((150, 106, 70), (126, 84, 56), (170, 150, 130))), 8)
    for x in range(dice.below(120), SIDE, 150):  # boards of the floor
        canvas.fill(canvas.polygon((x, horizon + 150), (x + 10, horizon + 150), (x - 60, SIDE), (x - 80, SIDE)), BLACK)
    canvas.fill((abs(canvas.y - horizon - 140) < 18) & (canvas.x >= 0), WHITE)


def _street(canvas: Canvas, dice: Dice, horizon: int) -> None:
    canvas.fill(None, dice.choice(((186, 196, 208), (160, 184, 210))), slope=20)
    x = -dice.below(100)
    while x < SIDE:
        width, top = dice.between(130, 240), dice.between(80, horizon - 120)
        color = dice.choice(((130, 126, 126), (156, 140, 128), (108, 112, 124), (170, 160, 156)))
        canvas.fill(canvas.polygon((x, top), (x + width, top), (x + width, SIDE), (x, SIDE)), color)
        x += width
    _below(canvas, horizon + 100, (176, 174, 170), 8)
    _below(canvas, horizon + 160, (76, 78, 84), 10)
    for x in range(dice.below(160), SIDE, 260):
        y = horizon + 330
        canvas.fill(canvas.polygon((x, y), (x + 130, y), (x + 120, y + 26), (x - 20, y + 26)), WHITE)


SCENES: dict[str, Callable[[Canvas, Dice, int], None]] = {
    "beach": _beach,
    "desert": _desert,
    "forest": _forest,
    "meadow": _meadow,
    "mountain": _mountain,
    "night": _night,
    "room": _room,
    "street": _street,
}
