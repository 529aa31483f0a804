"""The main figures of question 3: neurons with a concept after training, and how many concepts they are."""

import pandas as pd

from tasks.report.concepts.results import ConceptResults
from tasks.report.measures import ACCURACY, measure_rows

OF = ["network", "seed", "detector"]


def concept_measures(results: ConceptResults) -> pd.DataFrame:
    """Return the main figures: all layers together, at the last snapshot."""
    columns = (results.accuracies[name] for name in ("network", "seed", "accuracy"))
    rows = [(str(n), int(seed), ACCURACY, "share", float(value)) for n, seed, value in zip(*columns, strict=True)]
    for _, mine in results.monitor.groupby(OF, sort=False):
        first = mine.iloc[0]
        network, seed, detector = str(first["network"]), int(first["seed"]), first["detector"]
        last = mine[mine["snapshot"] == mine["snapshot"].max()]
        summed = {
            name: float(last[name].astype(float).sum(min_count=1))
            for name in ("neurons", "interpretable", "null_interpretable", "distinct")
        }
        of, neurons = (network, seed), summed["neurons"]
        if neurons > 0:
            rows += [
                (*of, f"{detector}: neurons with a concept", "share", summed["interpretable"] / neurons),
                (*of, f"{detector}: neurons with one by chance", "share", summed["null_interpretable"] / neurons),
                (*of, f"{detector}: different concepts, summed over layers", "number", summed["distinct"]),
            ]
    return measure_rows("concepts", rows)
