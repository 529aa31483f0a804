"""The objects of mini-Broden and their parts, as shapes in a box of 1000 x 1000 units, y downwards."""

from dataclasses import dataclass

from tasks.io.drawing.canvas import SIDE, Canvas, Mask
from tasks.io.drawing.colors import BLACK, BROWNS, GLASS, GREY, LEAVES, PAINTS, SKINS, WHITE, Color
from tasks.io.drawing.dice import Dice

BOX = 1000
SKY = ("cloud", "star")
PART_SHOWN = 80  # percent of the parts of an object that are drawn


@dataclass(frozen=True)
class Shape:
    """An ellipse (x, y, rx, ry), or a convex polygon of x, y, x, y, ..."""

    numbers: tuple[int, ...]
    color: str  # role, such as body
    part: str = ""

    @property
    def round(self) -> bool:
        """Whether the shape is an ellipse; a polygon has three corners or more."""
        return len(self.numbers) == 4

    def bounds(self) -> tuple[int, int, int, int]:
        """Return left, top, right and bottom."""
        if self.round:
            x, y, rx, ry = self.numbers
            return x - rx, y - ry, x + rx, y + ry
        xs, ys = self.numbers[::2], self.numbers[1::2]
        return min(xs), min(ys), max(xs), max(ys)


def box(left: int, top: int, right: int, bottom: int, color: str, part: str = "") -> Shape:
    """Return an upright rectangle."""
    return Shape((left, top, right, top, right, bottom, left, bottom), color, part)


THINGS: dict[str, tuple[Shape, ...]] = {  # the first shape is always drawn
    "car": (
        Shape((40, 560, 960, 560, 985, 850, 15, 850), "body"),
        Shape((190, 560, 330, 280, 690, 280, 850, 560), "body"),
        Shape((265, 550, 365, 345, 490, 345, 490, 550), "glass", "window"),
        Shape((535, 550, 535, 345, 660, 345, 770, 550), "glass", "window"),
        *(Shape((x, 850, r, r), color, "wheel") for x in (240, 760) for r, color in ((150, "black"), (60, "grey"))),
    ),
    "bus": (
        box(15, 180, 985, 870, "body"),
        *(box(x, 270, x + 150, 500, "glass", "window") for x in (70, 250, 430)),
        box(15, 570, 985, 620, "second"),
        box(720, 270, 920, 870, "light", "door"),
        *(Shape((x, 870, r, r), color, "wheel") for x in (220, 560) for r, color in ((125, "black"), (50, "grey"))),
    ),
    "house": (
        box(110, 430, 890, 1000, "body"),
        Shape((20, 450, 500, 60, 980, 450), "roof", "roof"),
        *(box(x, 540, x + 190, 740, "glass", "window") for x in (175, 640)),
        box(410, 620, 590, 1000, "second", "door"),
    ),
    "tree": (
        *(Shape((x, y, rx, ry), "leaf", "crown") for x, y, rx, ry in ((500, 320, 330, 310), (290, 430, 230, 200))),
        Shape((710, 430, 230, 200), "leaf", "crown"),
        box(430, 600, 570, 1000, "brown", "trunk"),
    ),
    "flower": (
        Shape((500, 310, 120, 120), "yellow"),
        box(465, 420, 535, 1000, "green", "stem"),
        *(
            Shape((500 + x, 310 + y, 130, 130), "body", "petal")
            for x, y in ((220, 0), (-220, 0), (110, 190), (-110, 190), (110, -190), (-110, -190))
        ),
        Shape((500, 310, 120, 120), "yellow"),
    ),
    "boat": (
        Shape((40, 700, 960, 700, 790, 960, 210, 960), "body"),
        box(480, 90, 520, 700, "brown"),
        Shape((550, 120, 550, 640, 930, 640), "light", "sail"),
        Shape((450, 200, 450, 640, 130, 640), "light", "sail"),
    ),
    "fish": (
        Shape((440, 500, 370, 250), "body"),
        Shape((740, 500, 990, 250, 990, 750), "second", "fin"),
        Shape((300, 300, 560, 120, 620, 320), "second", "fin"),
        *(Shape((220, 430, r, r), color, "eye") for r, color in ((85, "white"), (42, "black"))),
    ),
    "cat": (
        Shape((560, 620, 320, 210), "fur"),
        Shape((270, 370, 210, 190), "fur"),
        Shape((90, 330, 110, 90, 260, 230), "fur"),
        Shape((290, 230, 430, 90, 450, 330), "fur"),
        Shape((800, 560, 900, 200, 970, 220, 880, 660), "fur"),
        *(box(x, 740, x + 90, 1000, "fur", "leg") for x in (290, 420, 640, 770)),
        *(Shape((x, 360, rx, 60), color, "eye") for x in (190, 350) for rx, color in ((55, "yellow"), (22, "black"))),
    ),
    "person": (
        box(330, 310, 670, 670, "body"),
        Shape((500, 165, 150, 165), "skin"),
        *(box(x, 320, x + 110, 640, "skin") for x in (210, 680)),
        *(box(x, 660, x + 150, 1000, "second", "leg") for x in (335, 515)),
        *(Shape((x, 150, 34, 40), "black", "eye") for x in (440, 560)),
    ),
    "ball": (Shape((500, 500, 490, 490), "body"), Shape((500, 500, 200, 490), "second")),
    "cloud": (
        *(Shape((x, 560, 250, 220), "white") for x in (260, 740)),
        Shape((500, 430, 300, 280), "white"),
    ),
    "star": (
        Shape((500, 20, 920, 740, 80, 740), "yellow"),
        Shape((500, 980, 920, 260, 80, 260), "yellow"),
    ),
}
PARTS: dict[str, tuple[Shape, ...]] = {  # shapes of each part in the first object that has it
    shape.part: tuple(other for other in shapes if other.part == shape.part)
    for shapes in reversed(THINGS.values())
    for shape in shapes
    if shape.part
}


@dataclass(frozen=True)
class Place:
    """Where a box of shapes lies on the canvas."""

    left: int
    top: int
    width: int
    height: int
    mirrored: bool
    bounds: tuple[int, int, int, int] = (0, 0, BOX, BOX)  # what of the shapes' own units fills the box

    def mask(self, canvas: Canvas, shape: Shape) -> Mask:
        """Return the pixels of a shape."""
        left, top, right, bottom = self.bounds
        wide, high = right - left, bottom - top

        def point(x: int, y: int) -> tuple[int, int]:
            across = (x - left) * self.width // wide
            return self.left + (self.width - across if self.mirrored else across), self.top + (
                y - top
            ) * self.height // high

        if shape.round:
            x, y, rx, ry = shape.numbers
            return canvas.ellipse(*point(x, y), rx * self.width // wide, ry * self.height // high)
        return canvas.polygon(*map(point, shape.numbers[::2], shape.numbers[1::2]))


def draw_object(name: str, canvas: Canvas, dice: Dice) -> None:
    """Draw an object at a random place; each of its parts is there in 80 of 100 cases."""
    size = dice.between(320, 640)
    width, height = size * dice.between(85, 115) // 100, size * dice.between(85, 115) // 100
    bottom = dice.between(height, 620) if name in SKY else dice.between(680, 1000)
    place = Place(dice.between(-60, SIDE + 60 - width), bottom - height, width, height, dice.percent(50))
    _draw(THINGS[name], name, place, canvas, dice)


def draw_part(name: str, canvas: Canvas, dice: Dice) -> None:
    """Draw a part that belongs to no object."""
    shapes = PARTS[name]
    bounds = [shape.bounds() for shape in shapes]
    left, top, right, bottom = (
        min(b[0] for b in bounds),
        min(b[1] for b in bounds),
        max(b[2] for b in bounds),
        max(b[3] for b in bounds),
    )
    longest, size = max(right - left, bottom - top), dice.between(240, 420)
    width, height = (right - left) * size // longest, (bottom - top) * size // longest
    x, y = dice.between(0, SIDE - width), dice.between(300, SIDE - height)
    place = Place(x, y, width, height, dice.percent(50), (left, top, right, bottom))
    _draw(shapes, "", place, canvas, dice)


def _draw(shapes: tuple[Shape, ...], name: str, place: Place, canvas: Canvas, dice: Dice) -> None:
    """Draw the shapes of an object, or of a detached part where `name` is empty."""
    colors = _colors(dice)
    parts = dict.fromkeys(shape.part for shape in shapes[1:] if shape.part and shape.part != shapes[0].part)
    hidden = {part for part in parts if not dice.percent(PART_SHOWN)}
    for shape in shapes:
        if shape.part not in hidden:
            canvas.thing(place.mask(canvas, shape), colors[shape.color], obj=name, part=shape.part)


def _colors(dice: Dice) -> dict[str, Color]:
    """Return a colour for each role."""
    body = dice.below(len(PAINTS))
    second = (body + 1 + dice.below(len(PAINTS) - 1)) % len(PAINTS)
    return {
        "body": PAINTS[body],
        "second": PAINTS[second],
        "roof": dice.choice(((170, 60, 44), (96, 60, 50), (84, 88, 100), (60, 90, 130))),
        "leaf": dice.choice(LEAVES),
        "brown": dice.choice(BROWNS),
        "fur": dice.choice(((226, 142, 62), (60, 58, 60), (150, 146, 142), (236, 230, 222), (120, 84, 56))),
        "skin": dice.choice(SKINS),
        "light": dice.choice((WHITE, (238, 220, 170), (226, 120, 100), (150, 200, 226))),
        "glass": dice.choice((GLASS, (130, 180, 210), (250, 226, 140))),
        "black": BLACK,
        "white": WHITE,
        "grey": GREY,
        "yellow": (246, 208, 60),
        "green": (70, 150, 60),
    }
