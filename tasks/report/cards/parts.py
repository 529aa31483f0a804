"""What a card's parts are laid out from: strips of pictures with words and links, figures and tables."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

from tasks.figures.overlay import Thumbnail, thumbnail
from tasks.report.blocks import FigureBlock, Shown
from tasks.report.cells import Table

SIZE = 128  # pixels of a picture in a strip


@dataclass(frozen=True)
class Item:
    """One element of a strip: its pictures, its name, and what is said of it.

    Attributes
    ----------
    link : address of the element on its page
    marked : whether it is framed
    flag : a warning, "" for none
    """

    shown: tuple[Shown, ...]
    name: str
    amount: str
    lines: tuple[str, ...]
    link: str
    marked: bool = False
    flag: str = ""


@dataclass(frozen=True)
class Strip:
    """A row of elements; wide ones have several pictures each."""

    title: str
    items: tuple[Item, ...]
    wide: bool = False


@dataclass(frozen=True)
class Part:
    """One question's part of a card.

    Attributes
    ----------
    id, title : of the section
    sentence : the answer
    notes : further sentences, and what is left out
    ask : lines of a config that ask the question, where it was not asked
    link, page : the address of the question's page, and its name
    folded : strips by less important scores
    """

    id: str
    title: str
    sentence: str
    strips: tuple[Strip, ...] = ()
    figures: tuple[FigureBlock, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    ask: str = ""
    link: str = ""
    page: str = ""
    folded: tuple[Strip, ...] = ()


@dataclass
class Pictures:
    """The thumbnails of a page, each once."""

    made: dict[str, Thumbnail] = field(default_factory=dict)

    def show(self, image: NDArray[np.uint8], alt: str, size: int = SIZE) -> Shown:
        """Keep a picture, and return how it is shown."""
        found = thumbnail(image, size)
        self.made[found.digest] = found
        return Shown(found.digest, alt)


def address(page: str, asked: Iterable[str], **place: object) -> str:
    """Return the address of an element on a question's page, "" where the report does not have the page."""
    if page not in asked:
        return ""
    return f"{page}.html" + (f"#{urlencode(place)}" if place else "")


def listed(names: Iterable[str]) -> str:
    """Join names: a, b and c."""
    found = list(names)
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} and {found[-1]}" if found else ""


def unique(names: Iterable[str]) -> list[str]:
    """Return names without repetition, in order."""
    return list(dict.fromkeys(names))
