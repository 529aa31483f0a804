"""The main figures of question 2: what a network keeps with few features for each class."""

import pandas as pd

from tasks.report.decomposition.results import DecompositionResults
from tasks.report.measures import ACCURACY, measure_rows

FIGURES = {
    "a_full": ACCURACY,
    "a_decomposed": "accuracy with the features of each class alone",
    "ratio": "part of the accuracy that these keep",
    "overlap_mean": "features that two classes share",
}


def decomposition_measures(results: DecompositionResults) -> pd.DataFrame:
    """Return the main figures."""
    return measure_rows(
        "decomposition",
        [
            (str(row["network"]), int(row["seed"]), what, "share", float(row[column]))
            for column, what in FIGURES.items()
            for row in results.networks.to_dict("records")
        ],
    )
