"""The tables of the concepts question as files: CSV in the site's data folder, Parquet and stills next to it."""

import io
from collections.abc import Sequence

import pandas as pd

from tasks.report.concepts.groups import Group
from tasks.report.concepts.results import COLUMNS, ConceptResults
from tasks.report.pages import MAX_CSV_ROWS

MAX_STILLS = 6  # networks and seeds, under their first detector
CONTRACT = ("concepts", "monitor")  # public: tables/<name>.parquet


def concept_csv(results: ConceptResults) -> tuple[dict[str, pd.DataFrame], tuple[str, ...]]:
    """Return the data files of the page, and a sentence on each table that is too long for the site.

    Parameters
    ----------
    results : with every column in every table
    """
    files, notes = {}, []
    for name in COLUMNS:
        frame: pd.DataFrame = getattr(results, name)
        if len(frame) > MAX_CSV_ROWS:
            where = f"; all are in tables/{_path(name)}" if name in _written(results) else ""
            notes.append(
                f"The {len(frame):,} rows of the table of {name.replace('_', ' ')} are too many for this site{where}."
            )
        elif len(frame) or name == "monitor":
            files[f"data/concepts_{name}.csv"] = frame.drop(columns="picture", errors="ignore")
    return files, tuple(notes)


def concept_files(results: ConceptResults, groups: Sequence[Group]) -> dict[str, bytes]:
    """Return the tables as Parquet and a few pictures for papers, by path below the report.

    Parameters
    ----------
    results : with every column in every table
    groups : the rows by network, seed and detector
    """
    files = {f"tables/{_path(name)}": _parquet(getattr(results, name)) for name in _written(results)}
    return files | _stills(results, groups)


def _written(results: ConceptResults) -> list[str]:
    """Name the tables that are written as Parquet; exemplars name images, so they are in the page alone."""
    return [name for name in COLUMNS if name in CONTRACT or (name != "exemplars" and len(getattr(results, name)))]


def _path(name: str) -> str:
    """Return the file name of a table."""
    return f"{name if name in CONTRACT else f'concept_{name}'}.parquet"


def _parquet(table: pd.DataFrame) -> bytes:
    """Return a table as a Parquet file; equal tables give equal bytes."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False, compression="zstd")
    return buffer.getvalue()


def _stills(results: ConceptResults, groups: Sequence[Group]) -> dict[str, bytes]:
    """Draw the main figure, and the plane of the last layer, of each network and seed."""
    from tasks.figures.concepts.holdings import holdings
    from tasks.figures.concepts.plane import plane_of
    from tasks.figures.concepts.still import holdings_plot, plane_plot

    files = {}
    firsts = {(group.network, group.seed): group for group in reversed(groups)}
    for (network, seed), group in list(reversed(firsts.items()))[:MAX_STILLS]:
        monitor = group.tables["monitor"]
        held = holdings(monitor, group.tables["categories"])
        files[f"figures/concepts-{network}-{seed}.png"] = holdings_plot(held, monitor, title=group.title)
        planes = list(group.by_layer("plane"))
        if planes:
            layer, rows = planes[-1]
            title = f"{group.title}, {layer}"
            last = int(rows["snapshot"].max())
            picture = plane_plot(plane_of(rows, results.anchors), last, title=f"{title}: {group.labels[last]}")
            files[f"figures/concept-plane-{network}-{seed}.png"] = picture
    return files
