"""The training images whose labels are probably wrong, as strips of images."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from tasks.figures.overlay import Thumbnail
from tasks.report import formats
from tasks.report.blocks import Shown
from tasks.report.pages import Image
from tasks.report.tracing.queries import Example, Key, example_thumbnails


@dataclass(frozen=True)
class Suspects:
    """The suspects of one network and seed."""

    title: str
    examples: tuple[Example, ...]


def suspect_strips(suspects: pd.DataFrame, images: Mapping[Key, Image]) -> tuple[list[Suspects], list[Thumbnail]]:
    """Lay the suspects out.

    Parameters
    ----------
    suspects : as `TracingResults` describes them, without those that must not be shown
    images : training images by (data, sample id)

    Returns
    -------
    a strip per network and seed, and the thumbnails of all of them
    """
    shown = suspects[suspects["shown"].astype(bool)]
    keys = [(str(row["data"]), int(row["sample_id"])) for _, row in shown.iterrows()]
    thumbs, _ = example_thumbnails(keys, images)
    strips = [
        Suspects(f"{network}, seed {seed}", tuple(_example(row, thumbs) for _, row in rows.iterrows()))
        for (network, seed), rows in shown.groupby(["network", "seed"], sort=False)
    ]
    return strips, list(thumbs.values())


def _example(row: pd.Series, thumbs: Mapping[Key, Thumbnail]) -> Example:
    """Name what one suspect is."""
    thumb = thumbs.get((str(row["data"]), int(row["sample_id"])))
    given, truth = str(row["given"]), row["truth"]
    details = [
        f"network: {row['says']}",
        f"others near: {formats.share(float(row['disagreement']))}",
        *([f"true: {truth}"] if isinstance(truth, str) else []),
        f"sample {int(row['sample_id'])}",
        *filter(None, [str(row["key"])]),
    ]
    alt = f"Training image, sample {int(row['sample_id'])}, given label {given}"
    return Example(
        shown=None if thumb is None else Shown(thumb.digest, alt),
        class_name=f"given {given}",
        share=f"loss {formats.measure(float(row['score']))}",
        details=tuple(details),
        agrees=False,
    )
