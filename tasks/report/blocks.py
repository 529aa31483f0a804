"""The parts a page is laid out from: figures with their table, galleries of thumbnails."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.figures.overlay import Thumbnail, thumbnail, unique_thumbnails
from tasks.figures.views import View
from tasks.report.cells import Table
from tasks.report.pages import Gallery, GalleryRow

MAX_IMAGES = 24
MAX_COLUMNS = 12


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
        """The views as JSON that cannot end the script element it stands in, so the template need not escape it."""
        text = json.dumps([vars(view) for view in self.views], allow_nan=False, separators=(",", ":"))
        return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


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


def gallery_blocks(galleries: Sequence[Gallery]) -> tuple[list[GalleryBlock], list[Thumbnail]]:
    """Lay galleries out.

    Returns
    -------
    the blocks, and the thumbnails of all of them, each content once
    """
    blocks: list[GalleryBlock] = []
    thumbnails: list[Thumbnail] = []
    for gallery in galleries:
        titles = list(dict.fromkeys(title for row in gallery.rows for title in row.overlays))
        columns = tuple(titles[: MAX_COLUMNS - 1])
        lines = []
        for row in gallery.rows[:MAX_IMAGES]:
            made = _thumbnails(row, columns)
            thumbnails += [thumb for thumb in made if thumb is not None]
            lines.append(_line(row, columns, made))
        note = _note(len(gallery.rows), len(titles))
        blocks.append(GalleryBlock(gallery.title, ("image", *columns), tuple(lines), note))
    return blocks, unique_thumbnails(thumbnails)


def _thumbnails(row: GalleryRow, columns: Sequence[str]) -> list[Thumbnail | None]:
    """The image's thumbnail and those of its overlays."""
    overlays = [row.overlays.get(title) for title in columns]
    return [thumbnail(row.image), *(None if image is None else thumbnail(image) for image in overlays)]


def _line(row: GalleryRow, columns: Sequence[str], made: Sequence[Thumbnail | None]) -> GalleryLine:
    """Name what each thumbnail shows."""
    image = f"sample {row.sample_id}, class {row.true_class}"
    alts = [f"Validation image, {image}", *(f"Heat map of the features from {title} on {image}" for title in columns)]
    cells = tuple(None if thumb is None else Shown(thumb.digest, alt) for thumb, alt in zip(made, alts, strict=True))
    return GalleryLine(row.sample_id, row.true_class, row.predicted, cells)


def _note(n_rows: int, n_titles: int) -> str:
    """Say what the caps leave out."""
    parts = []
    if n_rows > MAX_IMAGES:
        parts.append(f"The first {MAX_IMAGES} of {n_rows} images.")
    if n_titles > MAX_COLUMNS - 1:
        parts.append(f"The first {MAX_COLUMNS - 1} of {n_titles} heat maps of each image.")
    return " ".join(parts)
