"""The main figures of question 1: the accuracy of each network, and what its smallest coresets keep."""

import pandas as pd

from tasks.report import formats
from tasks.report.interpretation.results import InterpretationResults
from tasks.report.measures import ACCURACY, measure_rows

KEPT = {
    "phi_0": ("distance to the features of all data (rad)", "rad"),
    "accuracy": ("accuracy from its features", "share"),
}


def interpretation_measures(results: InterpretationResults) -> pd.DataFrame:
    """Return the main figures, those of coresets for the smallest budget of each selector, means over repeats."""
    networks, budgets = results.networks, results.by_budget
    columns = (networks[name] for name in ("network", "seed", "top1"))
    rows = [
        (str(network), int(seed), ACCURACY, "share", float(top1)) for network, seed, top1 in zip(*columns, strict=True)
    ]
    keys = ["network", "seed", "interpreter", "selector"]
    if len(budgets):
        smallest = budgets[budgets["budget"] == budgets.groupby(keys)["budget"].transform("min")]
        for _, part in smallest.groupby(keys, sort=False):
            row = part.iloc[0]
            of = f"{row['interpreter']}, {row['selector']} {formats.budget(float(row['budget']))}"
            for column, (what, unit) in KEPT.items():
                if column in part:
                    mean = float(part[column].mean())
                    rows.append((str(row["network"]), int(row["seed"]), f"{of}: {what}", unit, mean))
    return measure_rows("interpretation", rows)
