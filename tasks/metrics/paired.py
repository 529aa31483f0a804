"""Differences of two sets of coresets class by class: the classes are the sample, so their spread is the noise."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd


class Gap(NamedTuple):
    """A mean difference over classes with its standard error, and the means whose difference it is.

    Attributes
    ----------
    mean : of the differences, second minus first; NaN without a class
    error : standard error over classes; NaN with one class
    n_classes : number of classes with a pair
    first, second : means of both sides over the same pairs and classes; NaN without a class
    """

    mean: float
    error: float
    n_classes: int
    first: float
    second: float


def gap(first: pd.DataFrame, second: pd.DataFrame, measure: str, shared: Sequence[str] = ("seed", "budget")) -> Gap:
    """Return the difference of a measure, second minus first, paired by class.

    Parameters
    ----------
    first, second : rows of the table of classes; draws are averaged
    measure : a column; a pair takes part where both values are finite
    shared : columns that pair rows besides the class; pairs are averaged for each class
    """
    keys = [*shared, "label"]
    one, other = (rows.groupby(keys, observed=True)[measure].mean() for rows in (first, second))
    both = pd.DataFrame({"first": one, "second": other}).replace([np.inf, -np.inf], np.nan).dropna()
    by_class = both.assign(gap=both["second"] - both["first"]).groupby("label").mean()
    n, means = len(by_class), by_class.mean()
    error = float(by_class["gap"].std(ddof=1) / n**0.5) if n > 1 else float("nan")
    return Gap(float(means["gap"]), error, n, float(means["first"]), float(means["second"]))
