"""What a page says first: the answer, a picture of it and warnings. The overview repeats it for every page."""

from collections.abc import Mapping
from dataclasses import dataclass

from tasks.figures.overlay import Thumbnail
from tasks.report.blocks import Shown

MAX_PICTURES = 6
MAX_BARS = 10
NOTHING = "There is nothing to compare yet."


@dataclass(frozen=True)
class Picture:
    """A small image of an opening.

    Attributes
    ----------
    thumbnail : the image
    alt : what it shows, in words
    text : a word or two below it
    box : left, top, width, height in shares of the image: where to look; None without
    mark : "asked", "for" or "against", "" for neither
    """

    thumbnail: Thumbnail
    alt: str
    text: str
    box: tuple[float, float, float, float] | None = None
    mark: str = ""

    @property
    def frame(self) -> tuple[float, float, float, float] | None:
        """The box in pixels of the thumbnail, inside the image by half a line."""
        if self.box is None:
            return None
        (left, top, width, height), wide, high = self.box, self.thumbnail.width, self.thumbnail.height
        edge = max(wide, high) / 45
        x, y = round(left * wide + edge / 2, 2), round(top * high + edge / 2, 2)
        return x, y, round(max(0.0, width * wide - edge), 2), round(max(0.0, height * high - edge), 2)


@dataclass(frozen=True)
class Bar:
    """A bar of an opening: what it is of, its length 0..1, the number in words, where chance would lie, its sign."""

    name: str
    share: float
    text: str
    chance: float | None = None
    against: bool = False


@dataclass(frozen=True)
class Opening:
    """What a page says first.

    Attributes
    ----------
    answer : the question answered in a sentence
    caption : what the picture shows
    pictures : the picture; where there are none, the bars are it
    bars : the picture in numbers
    warnings : why the results may mean little
    """

    answer: str = NOTHING
    caption: str = ""
    pictures: tuple[Picture, ...] = ()
    bars: tuple[Bar, ...] = ()
    warnings: tuple[str, ...] = ()


def pictured(shown: Shown, thumbnails: Mapping[str, Thumbnail], text: str, mark: str = "") -> Picture | None:
    """Return a thumbnail of a page as a picture of its opening, None where the page does not have it."""
    found = thumbnails.get(shown.digest)
    return None if found is None else Picture(found, shown.alt, text, mark=mark)


def bar_share(value: float) -> float:
    """Return a number as the length of a bar: within 0..1, an unknown one as 0."""
    return min(1.0, max(0.0, value)) if value == value else 0.0
