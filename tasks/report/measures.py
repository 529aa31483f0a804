"""The main figures of a run by question, network and seed, and how they compare: mean and spread over seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.report import formats
from tasks.report.cells import Column, Table

COLUMNS = ("question", "network", "seed", "measure", "unit", "value")
UNITS = {"share": formats.share_spread, "rad": formats.radians_spread, "number": formats.measure_spread}
ACCURACY = "accuracy"
PATH = "data/measures.csv"


@dataclass(frozen=True)
class Figure:
    """A measure of one network: mean and standard deviation over seeds (NaN with one), and the number of seeds."""

    mean: float
    std: float
    seeds: int


@dataclass(frozen=True)
class Compared:
    """A measure of several networks, by their names in the comparison."""

    question: str
    measure: str
    unit: str
    figures: Mapping[str, Figure]


def measure_rows(question: str, rows: Sequence[tuple[str, int, str, str, float]]) -> pd.DataFrame:
    """Return a table of measures from rows of network, seed, measure, unit (of `UNITS`) and value; unknown ones go."""
    known = [(question, *row) for row in rows if np.isfinite(row[-1])]
    return pd.DataFrame(known, columns=list(COLUMNS))


def joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the measures of all questions; the accuracy of a network and seed once, from the first that has it."""
    found = pd.concat([pd.DataFrame(columns=list(COLUMNS)), *(table for table in tables if len(table))])
    known = (found["measure"] == ACCURACY) & found.duplicated(["network", "seed", "measure"])
    return found[~known].reset_index(drop=True)


def compare(runs: Mapping[str, pd.DataFrame]) -> tuple[list[str], list[Compared]]:
    """Put the measures of runs side by side.

    Parameters
    ----------
    runs : tables of measures by name of the run

    Returns
    -------
    the networks, named by their run where each run has one, else by run and network, or by the network alone where
    there is one run; and every measure that any of them has, accuracy first, then in the order of the runs
    """
    single = all(table["network"].nunique() <= 1 for table in runs.values())
    columns: list[str] = []
    values: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for run, table in runs.items():
        for row in table.to_dict("records"):
            name = str(row["network"]) if len(runs) == 1 else run if single else f"{run}: {row['network']}"
            if name not in columns:
                columns.append(name)
            question = "" if row["measure"] == ACCURACY else str(row["question"])
            of_measure = values.setdefault((question, str(row["measure"]), str(row["unit"])), {})
            of_measure.setdefault(name, []).append(float(row["value"]))
    found = [
        Compared(*key, {name: _figure(numbers) for name, numbers in by_name.items()}) for key, by_name in values.items()
    ]
    order = list(dict.fromkeys(["", *(one.question for one in found)]))
    return columns, sorted(found, key=lambda one: order.index(one.question))


def figures_table(columns: Sequence[str], compared: Sequence[Compared], csv: str = "") -> Table:
    """Print measures side by side; with two networks also their difference."""
    heads = [Column("question", numeric=False), Column("figure", numeric=False, wraps=True), *map(Column, columns)]
    if len(columns) == 2:
        heads.append(Column("difference"))
    rows = []
    for one in compared:
        cells = [printed(one.figures.get(name), one.unit) for name in columns]
        differs = [difference(one, *columns)] if len(columns) == 2 else []
        rows.append((one.question or "network", one.measure, *cells, *differs))
    caption = "Main figures of each question: mean ± standard deviation over seeds, where there are several"
    return Table(caption, tuple(heads), tuple(rows), csv=csv)


def printed(figure: Figure | None, unit: str) -> str:
    """Print a figure with its spread over seeds."""
    return formats.MISSING if figure is None else UNITS[unit](figure.mean, figure.std)


def difference(one: Compared, first: str, second: str) -> str:
    """Print the second's figure less the first's; say if it is within twice the larger spread over seeds."""
    a, b = one.figures.get(first), one.figures.get(second)
    if a is None or b is None:
        return formats.MISSING
    gap = b.mean - a.mean
    text = formats.signed_points(gap, float("nan")) if one.unit == "share" else formats.signed(gap)
    spread = np.nanmax([a.std, b.std]) if np.isfinite([a.std, b.std]).any() else np.nan
    if not np.isfinite(spread) or gap == 0:
        return text
    return f"{text} ({'within' if abs(gap) <= 2 * spread else 'beyond'} 2 spreads)"


def _figure(numbers: Sequence[float]) -> Figure:
    """Summarise the values of the seeds."""
    values = np.array(numbers, np.float64)
    return Figure(float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else float("nan"), len(values))
