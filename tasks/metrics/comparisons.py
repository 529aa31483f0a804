"""Comparisons behind the coreset paper's observations: selectors with random, small budgets with large ones."""

import pandas as pd

from tasks.metrics.paired import gap
from tasks.metrics.robustness import counts_for_robustness

BASELINE = "random"
KEYS = ["network", "interpreter", "selector"]
MEASURES = ("distance_0", "accuracy", "accuracy_without")


def against_random(classes: pd.DataFrame) -> pd.DataFrame:
    """Compare each selector's distance with that of random, over the budgets from 10 % to 50 %.

    Parameters
    ----------
    classes : the table of classes, without transferred coresets

    Returns
    -------
    a row per (network, interpreter, selector other than random): `difference`, the selector's distance minus random's,
    paired by class, and `error`, its standard error over classes (NaN with one class)
    """
    inside = classes[classes["budget"].map(counts_for_robustness)]
    rows = []
    for (network, interpreter), part in inside.groupby(KEYS[:2], sort=False, observed=True):
        random = part[part["selector"] == BASELINE]
        for selector, others in part[part["selector"] != BASELINE].groupby("selector", sort=False, observed=True):
            found = gap(random, others, "distance_0")
            rows.append((network, interpreter, selector, found.mean, found.error, found.n_classes))
    return pd.DataFrame(rows, columns=[*KEYS, "difference", "error", "n_classes"])


def with_budget(classes: pd.DataFrame) -> pd.DataFrame:
    """Compare the largest budget below 100 % with the smallest, for each selector.

    Parameters
    ----------
    classes : the table of classes, without transferred coresets

    Returns
    -------
    a row per (network, interpreter, selector, measure of MEASURES that is known): `least` and `most`, the budgets;
    `difference`, the value at the largest minus that at the smallest, paired by class; `error` as in `against_random`
    """
    rows = []
    below = classes[classes["budget"] < 1]
    for (network, interpreter), part in below.groupby(KEYS[:2], sort=False, observed=True):
        ends = part["budget"].min(), part["budget"].max()
        for selector, mine in part.groupby("selector", sort=False, observed=True):
            first, last = (mine[mine["budget"] == end] for end in ends)
            for measure in (name for name in MEASURES if name in mine and ends[0] < ends[1]):
                found = gap(first, last, measure, ("seed",))
                if found.n_classes:
                    rows.append(
                        (network, interpreter, selector, measure, *ends, found.mean, found.error, found.n_classes)
                    )
    return pd.DataFrame(rows, columns=[*KEYS, "measure", "least", "most", "difference", "error", "n_classes"])
