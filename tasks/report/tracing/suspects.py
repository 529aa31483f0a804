"""The training images whose labels are probably wrong, and the images that taught the network otherwise."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import pandas as pd

from tasks.figures.overlay import Thumbnail
from tasks.report import formats
from tasks.report.blocks import Shown
from tasks.report.pages import Image
from tasks.report.tracing.queries import Example, Key, example_thumbnails

BY = {"counterfactual": ", counterfactual", "tracin": ", TracIn"}  # in the title of a score's teachers


@dataclass(frozen=True)
class Suspect:
    """One suspect, with its teachers by each score under a title that names the class they moved the answer to."""

    example: Example
    taught: tuple[tuple[str, tuple[Example, ...]], ...]


@dataclass(frozen=True)
class Suspects:
    """The suspects of one network and seed."""

    title: str
    rows: tuple[Suspect, ...]


def suspect_strips(
    suspects: pd.DataFrame, teachers: pd.DataFrame, images: Mapping[Key, Image]
) -> tuple[list[Suspects], list[Thumbnail]]:
    """Lay the suspects out.

    Parameters
    ----------
    suspects, teachers : as `TracingResults` describes them, without those that must not be shown
    images : training images by (data, sample id)

    Returns
    -------
    a strip per network and seed, and the thumbnails of all of them
    """
    shown, taught = (table[table["shown"].astype(bool)] for table in (suspects, teachers))
    keys = [(str(row["data"]), int(row["sample_id"])) for _, row in shown.iterrows()]
    keys += [(str(row["data"]), int(row["example_id"])) for _, row in taught.iterrows()]
    thumbs, _ = example_thumbnails(keys, images)
    by_suspect = _by_suspect(taught)
    strips = [
        Suspects(
            f"{network}, seed {seed}",
            tuple(
                _suspect(row, by_suspect.get((network, seed, row["sample_id"])), thumbs) for _, row in rows.iterrows()
            ),
        )
        for (network, seed), rows in shown.groupby(["network", "seed"], sort=False)
    ]
    return strips, list(thumbs.values())


def _by_suspect(teachers: pd.DataFrame) -> dict[tuple[Hashable, ...], pd.DataFrame]:
    """Return the teachers of each suspect, by network, seed and sample id."""
    keys = ["network", "seed", "sample_id"]
    return {tuple(key): rows for key, rows in teachers.groupby(keys, sort=False)} if len(teachers) else {}


def _suspect(row: pd.Series, teachers: pd.DataFrame | None, thumbs: Mapping[Key, Thumbnail]) -> Suspect:
    """Lay out one suspect with its teachers."""
    if teachers is None:
        return Suspect(_example(row, thumbs), ())
    title = f"Taught it {teachers['other_class'].iloc[0]} instead of {row['given']}"
    taught = tuple(
        (f"{title}{BY.get(str(score), '')}", tuple(_teacher(each, thumbs) for _, each in rows.iterrows()))
        for score, rows in teachers.groupby("by", sort=False)
    )
    return Suspect(_example(row, thumbs), taught)


def _teacher(row: pd.Series, thumbs: Mapping[Key, Thumbnail]) -> Example:
    """Name what one teacher did."""
    sample, name = int(row["example_id"]), str(row["class_name"])
    thumb = thumbs.get((str(row["data"]), sample))
    return Example(
        shown=None
        if thumb is None
        else Shown(thumb.digest, f"Training example, sample {sample}, {formats.class_of(name)}"),
        class_name=name,
        share=formats.signed(float(row["value"])),
        details=(f"{formats.share(float(row['share']))} of all", f"sample {sample}", str(row["example_key"])),
        agrees=name == str(row["other_class"]),
    )


def _example(row: pd.Series, thumbs: Mapping[Key, Thumbnail]) -> Example:
    """Name what one suspect is."""
    thumb = thumbs.get((str(row["data"]), int(row["sample_id"])))
    given, truth = str(row["given"]), row["truth"]
    details = [
        f"network: {row['says']}",
        f"others near: {formats.share(float(row['disagreement']))}",
        *([f"true: {truth}"] if isinstance(truth, str) else []),
        f"sample {int(row['sample_id'])}",
        str(row["key"]),
    ]
    alt = f"Training example, sample {int(row['sample_id'])}, given label {given}"
    return Example(
        shown=None if thumb is None else Shown(thumb.digest, alt),
        class_name=f"given {given}",
        share=f"loss {formats.measure(float(row['score']))}",
        details=tuple(details),
        agrees=False,
    )
