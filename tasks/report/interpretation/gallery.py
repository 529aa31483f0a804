"""Heat maps on validation images, a block per network."""

from collections.abc import Sequence

from tasks.figures.overlay import Thumbnail, thumbnail, unique_thumbnails
from tasks.report.blocks import MAX_IMAGES, GalleryBlock, GalleryLine, Shown
from tasks.report.interpretation.results import Gallery, GalleryRow

MAX_COLUMNS = 12


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
