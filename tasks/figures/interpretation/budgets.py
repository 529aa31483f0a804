"""Lines over budgets from a table of means and standard deviations."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.figures.series import Floats
from tasks.metrics.comparisons import BASELINE as BASELINE  # the page compares with it too

DISTANCES = {"0": "α = 0", "05": "α = 0.5", "1": "α = 1"}
ACCURACIES = {"accuracy": "top-1", "accuracy_top5": "top-5", "agreement": "agreement"}
WITHOUT = {"accuracy_without": "top-1 without the units"}  # of interpreters that find units
PLAIN = {
    **{"accuracy": "accuracy_plain", "accuracy_top5": "accuracy_plain_top5"},
    "accuracy_without": "accuracy_plain",
}
NEARLY_ALL = 0.95  # the budget of the paper's reference line


@dataclass(frozen=True)
class Series:
    """One selector's line.

    Attributes
    ----------
    name : name of the selector
    budget : (b,) float64, ascending, 0..1
    mean, std : (b,) float64, NaN where unknown
    """

    name: str
    budget: Floats
    mean: Floats
    std: Floats

    def band(self) -> tuple[Floats, Floats, Floats]:
        """Return budget, lower and upper edge of mean ± std (k,), finite points only; empty without any spread."""
        finite = np.isfinite(self.mean) & np.isfinite(self.std)
        if not np.any(self.std[finite] > 0):
            finite = np.zeros_like(finite)
        mean, std = self.mean[finite], self.std[finite]
        return self.budget[finite], mean - std, mean + std


def selector_series(table: pd.DataFrame, measure: str) -> list[Series]:
    """Split the table into one line per selector.

    Parameters
    ----------
    table : rows of one network and interpreter; columns selector, budget, {measure}_mean, {measure}_std
    measure : such as "phi_0" or "accuracy"

    Returns
    -------
    one line per selector, in the table's order
    """
    return [_line(str(name), rows, measure) for name, rows in table.groupby("selector", sort=False)]


def reference(table: pd.DataFrame, measure: str) -> tuple[Floats, Floats]:
    """Average a reference, such as the null distance, over the selectors.

    Parameters
    ----------
    table : as in `selector_series`

    Returns
    -------
    budget (b,) ascending and mean (b,), finite points only
    """
    if f"{measure}_mean" not in table:
        return np.empty(0), np.empty(0)
    mean = table.groupby("budget")[f"{measure}_mean"].mean().dropna()
    return mean.index.to_numpy(np.float64), mean.to_numpy(np.float64)


def nearly_all(table: pd.DataFrame, measure: str) -> float:
    """Average a measure at 95 % of the data over the selectors, NaN where this budget is not in the table."""
    budget, mean = reference(table, measure)
    at = np.isclose(budget, NEARLY_ALL)
    return float(mean[at][0]) if at.any() else float("nan")


def accuracy_measure(table: pd.DataFrame) -> str:
    """Return the measure of accuracy that a table has: with reconstructed maps, or else without a class's units."""
    known = [name for name in ("accuracy", *WITHOUT) if f"{name}_mean" in table and table[f"{name}_mean"].notna().any()]
    return known[0] if known else "accuracy"


def pairs(table: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield network, interpreter and their rows, in the table's order."""
    for (network, interpreter), rows in table.groupby(["network", "interpreter"], sort=False):
        yield str(network), str(interpreter), rows


def _line(name: str, rows: pd.DataFrame, measure: str) -> Series:
    """Sort one selector's rows by budget."""
    rows = rows.sort_values("budget")
    mean, std = (_floats(rows, f"{measure}_{part}") for part in ("mean", "std"))
    return Series(name, _floats(rows, "budget"), mean, std)


def _floats(rows: pd.DataFrame, column: str) -> Floats:
    """The column as float64, NaN throughout where there is none."""
    return np.asarray(rows[column], np.float64) if column in rows else np.full(len(rows), np.nan)
