"""Differences of two sets of coresets class by class: the classes are the sample, so their spread is the noise."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd


class Gap(NamedTuple):
    """A mean difference over classes, its standard error (NaN with one class), and the number of classes."""

    mean: float
    error: float
    n_classes: int


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
    pairs = (other - one).replace([np.inf, -np.inf], np.nan).dropna()
    by_class = pairs.groupby("label").mean().to_numpy(np.float64)
    n = len(by_class)
    error = float(by_class.std(ddof=1) / n**0.5) if n > 1 else float("nan")
    return Gap(float(by_class.mean()) if n else float("nan"), error, n)
