"""How categories of concepts differ in all figures: colour, pattern, symbol; low-level ones are hatched."""

from collections.abc import Iterable
from dataclasses import dataclass

from tasks.figures.series import COLOURS

LOW = ("color", "texture", "material")
HIGH = ("part", "object", "scene")
NEITHER = ("#8a93a3", "")  # neurons without a concept


@dataclass(frozen=True)
class Style:
    """Colour, fill pattern of plotly's bars, and plotly's symbol of a point."""

    colour: str
    pattern: str
    symbol: str


KNOWN = {
    "color": Style(COLOURS[5], "/", "square"),
    "texture": Style(COLOURS[1], ".", "triangle-up"),
    "material": Style(COLOURS[4], "x", "cross"),
    "part": Style(COLOURS[2], "", "diamond"),
    "object": Style(COLOURS[0], "", "circle"),
    "scene": Style(COLOURS[3], "", "pentagon"),
}
OTHER = Style("#B9C0CA", "", "hexagon")
MORE = tuple(Style(colour, "-", "hourglass") for colour in COLOURS)


def styles_of(categories: Iterable[str]) -> dict[str, Style]:
    """Return a style per category: the six of Broden from low to high level, then any others, `other` last."""
    names = set(categories)
    found = {name: style for name, style in KNOWN.items() if name in names}
    rest = sorted(names - set(KNOWN) - {"other"})
    found |= {name: MORE[i % len(MORE)] for i, name in enumerate(rest)}
    return found | ({"other": OTHER} if "other" in names else {})
