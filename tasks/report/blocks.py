"""The parts a page is laid out from: figures with their table, galleries of thumbnails."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.figures.views import View
from tasks.report.cells import Table

MAX_IMAGES = 24  # of a gallery


def script_json(value: object) -> str:
    """Return JSON that cannot end the script element around it."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@dataclass(frozen=True)
class FigureBlock:
    """A figure, the choices above it, which of them is taken at first, and the table of its numbers."""

    id: str
    title: str
    caption: str
    views: Sequence[View]
    table: Table | None
    start: int = 0

    @property
    def json(self) -> str:
        """The views as JSON that cannot end the script element around it, so the template need not escape it."""
        return script_json([vars(view) for view in self.views])


@dataclass(frozen=True)
class Shown:
    """A thumbnail as it is shown: which one and what it says to those who do not see it."""

    digest: str
    alt: str


@dataclass(frozen=True)
class GalleryLine:
    """One image: what it is, and a thumbnail per column, None where there is none."""

    sample_id: int
    true_class: str
    predicted: str
    cells: tuple[Shown | None, ...]


@dataclass(frozen=True)
class GalleryBlock:
    """A gallery with the thumbnails it needs, each once."""

    title: str
    columns: tuple[str, ...]
    lines: tuple[GalleryLine, ...]
    note: str
