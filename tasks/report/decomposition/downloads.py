"""The tables of the decomposition question as they stand in the site's data folder."""

import numpy as np
import pandas as pd

from tasks.report.decomposition.page import COLUMNS, DecompositionTables
from tasks.report.pages import MAX_CSV_ROWS


def decomposition_csv(
    page: DecompositionTables, authors: pd.DataFrame
) -> tuple[dict[str, pd.DataFrame], tuple[str, ...]]:
    """Return the files of a page.

    Parameters
    ----------
    page : with every column in every table
    authors : the authors' figures beside ours

    Returns
    -------
    tables by path, and a sentence on each that is too long for the site
    """
    frames = {name: getattr(page, name) for name in COLUMNS}
    frames |= {"histograms": histogram_table(page), "overlaps": overlap_table(page), "authors": authors}
    files, notes = {}, []
    for name, frame in frames.items():
        if len(frame) > MAX_CSV_ROWS:
            words = name.replace("_", " ")
            notes.append(f"The {len(frame):,} rows of the table of {words} are too many for this site.")
        elif len(frame) or name == "networks":
            files[f"data/decomposition_{name}.csv"] = frame
    return files, tuple(notes)


def histogram_table(page: DecompositionTables) -> pd.DataFrame:
    """List the relative index frequencies of the classes handed over: a row per class and feature."""
    found = [
        pd.DataFrame(
            {"network": h.network, "seed": h.seed, "class_name": h.class_name, "feature": np.arange(len(h.frequencies))}
        ).assign(frequency=h.frequencies, chosen=np.isin(np.arange(len(h.frequencies)), h.chosen))
        for h in page.histograms
    ]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def overlap_table(page: DecompositionTables) -> pd.DataFrame:
    """List what every two classes share: a row per pair."""
    found = []
    for overlap in page.overlaps:
        rows, columns = np.triu_indices(len(overlap.classes), k=1)
        names = np.asarray(overlap.classes, dtype=object)
        pairs = {"network": overlap.network, "seed": overlap.seed, "class_name": names[rows]}
        found.append(pd.DataFrame(pairs | {"other": names[columns], "overlap": overlap.matrix[rows, columns]}))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()
