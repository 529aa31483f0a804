"""Feature maps in a row: image, all, other and influential features."""

from collections.abc import Sequence

from tasks.figures.overlay import Thumbnail, thumbnail, unique_thumbnails
from tasks.report.blocks import MAX_IMAGES, GalleryBlock, GalleryLine, Shown
from tasks.report.decomposition.results import FeatureMapRow

COLUMNS = ("image", "all", "other", "influential")
MAX_NETWORKS = 8


def feature_map_blocks(rows: Sequence[FeatureMapRow]) -> tuple[list[GalleryBlock], list[Thumbnail]]:
    """Lay the rows out, a block per network.

    Returns
    -------
    the blocks, and the thumbnails of all of them, each content once
    """
    blocks: list[GalleryBlock] = []
    thumbnails: list[Thumbnail] = []
    for network in list(dict.fromkeys(row.network for row in rows))[:MAX_NETWORKS]:
        mine = [row for row in rows if row.network == network]
        lines = []
        for row in mine[:MAX_IMAGES]:
            made = [thumbnail(picture) for picture in (row.image, row.all, row.other, row.influential)]
            thumbnails += made
            lines.append(_line(row, made))
        note = f"The first {MAX_IMAGES} of {len(mine)} images." if len(mine) > MAX_IMAGES else ""
        blocks.append(GalleryBlock(network, COLUMNS, tuple(lines), note))
    return blocks, unique_thumbnails(thumbnails)


def _line(row: FeatureMapRow, made: Sequence[Thumbnail]) -> GalleryLine:
    """Name what each thumbnail shows."""
    image = f"sample {row.sample_id}, class {row.true_class}"
    alts = [f"Image of split {row.split}, {image}"]
    alts += [f"Mean map of {which} features on {image}" for which in COLUMNS[1:]]
    cells = tuple(Shown(thumb.digest, alt) for thumb, alt in zip(made, alts, strict=True))
    return GalleryLine(row.sample_id, row.true_class, row.predicted, cells)
