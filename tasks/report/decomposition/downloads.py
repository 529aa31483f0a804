"""The tables of the decomposition question in the site's data folder."""

import numpy as np
import pandas as pd

from tasks.report.decomposition.results import COLUMNS, DecompositionResults
from tasks.report.pages import MAX_CSV_ROWS


def decomposition_csv(
    results: DecompositionResults, authors: pd.DataFrame
) -> tuple[dict[str, pd.DataFrame], tuple[str, ...]]:
    """Return the data files of the page.

    Parameters
    ----------
    results : with every column in every table
    authors : the authors' figures compared with ours

    Returns
    -------
    tables by path, and a sentence on each that is too long for the site
    """
    frames = {name: getattr(results, name) for name in COLUMNS}
    frames |= {"histograms": histogram_table(results), "overlaps": overlap_table(results), "authors": authors}
    files, notes = {}, []
    for name, frame in frames.items():
        if len(frame) > MAX_CSV_ROWS:
            words = name.replace("_", " ")
            notes.append(f"The {len(frame):,} rows of the table of {words} are too many for this site.")
        elif len(frame) or name == "networks":
            files[f"data/decomposition_{name}.csv"] = frame
    return files, tuple(notes)


def histogram_table(results: DecompositionResults) -> pd.DataFrame:
    """List the relative index frequencies of the classes handed over: a row per class and feature."""
    frames = [
        pd.DataFrame(
            {"network": h.network, "seed": h.seed, "class_name": h.class_name, "feature": np.arange(len(h.frequencies))}
        ).assign(frequency=h.frequencies, chosen=np.isin(np.arange(len(h.frequencies)), h.chosen))
        for h in results.histograms
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def overlap_table(results: DecompositionResults) -> pd.DataFrame:
    """List what every two classes share: a row per pair."""
    frames = []
    for overlap in results.overlaps:
        rows, columns = np.triu_indices(len(overlap.classes), k=1)
        names = np.asarray(overlap.classes, dtype=object)
        pairs = {"network": overlap.network, "seed": overlap.seed, "class_name": names[rows]}
        frames.append(pd.DataFrame(pairs | {"other": names[columns], "overlap": overlap.matrix[rows, columns]}))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
