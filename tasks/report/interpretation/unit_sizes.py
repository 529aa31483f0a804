"""How many units VEBI finds, next to its distances: columns of the tables, and sentences."""

from collections.abc import Iterator

import pandas as pd

from tasks.figures.interpretation.coverage_map import FULL_DATA
from tasks.report import formats
from tasks.report.cells import Cell, Table, number_cell, print_table, text_cell
from tasks.report.findings import Finding
from tasks.report.interpretation.unit_results import UnitResults


def unit_findings(units: UnitResults | None, network: str, interpreter: str) -> list[Finding]:
    """State how many units the classes of a network have, and where that is too few; nothing for other interpreters."""
    if units is None or interpreter != units.interpreter:
        return []
    sizes = units.sizes[units.sizes["network"] == network]
    full = sizes[sizes["selector"] == FULL_DATA]["units"].mean()
    parts = [f"{FULL_DATA} {formats.count(full)}"]
    for selector, rows in sizes[sizes["selector"] != FULL_DATA].groupby("selector", sort=False):
        means = rows.groupby("budget")["units"].mean()
        low, high = means.index[0], means.index[-1]
        ends = dict.fromkeys((low, high))
        parts.append(f"{selector} " + ", ".join(f"{formats.count(means[b])} at {formats.budget(b)}" for b in ends))
    said = f"VEBI finds this many units for a class, on average: {'; '.join(parts)} (mu = {units.mu:g})."
    return [
        Finding("Units per class", said),
        *(Finding("Few units", text) for text in _few(sizes)),
        *(Finding("Never predicted", text) for text in _never_predicted(sizes)),
    ]


def _few(sizes: pd.DataFrame) -> Iterator[str]:
    """Warn of coresets with so few units that their distances say nothing."""
    few = sizes[sizes["few"].astype(bool)]
    if len(few):
        named = _named(few.groupby(["selector", "budget"], sort=False)["units"].mean())
        yield (
            f"Fewer than two units a class on average: {named}. Distances of so few units are small for any units. "
            "They do not show that the features agree. A larger mu finds more units."
        )


def _never_predicted(sizes: pd.DataFrame) -> Iterator[str]:
    """Count the classes that the network predicts for no image of a set: they have no units."""
    unseen = sizes[sizes["never_predicted"] > 0]
    if len(unseen):
        named = _named(unseen.groupby(["selector", "budget"], sort=False)["never_predicted"].max())
        yield (
            f"Some of the {int(unseen['n_classes'].max())} classes are predicted for no image of a set. They have no "
            f"units there. Number of these classes: {named}."
        )


def _named(values: pd.Series) -> str:
    """Print a value of each selector and budget."""
    said = []
    for selector, budget, value in values.reset_index().itertuples(index=False):
        place = str(selector) if selector == FULL_DATA else f"{selector} at {formats.budget(budget)}"
        said.append(f"{place} {formats.count(float(value))}")
    return ", ".join(said)


def sizes_table(sizes: pd.DataFrame) -> Table:
    """List units, classes without any, the drop of the accuracy and the cost, by set; rows of one network."""
    numbers = sizes.drop(columns=["network", "seed", "repeat"]).astype({"few": float})
    rows = numbers.groupby(["selector", "budget"], sort=False).mean().reset_index()
    cells: dict[str, Cell] = {
        "set": text_cell("selector"),
        "budget": number_cell("budget", formats.budget),
        "images": number_cell("samples", formats.count),
        "units per class": number_cell("units", formats.count),
        "also on full data": number_cell("units_shared", formats.count),
        "classes never predicted": number_cell("never_predicted", formats.count),
        "accuracy": number_cell("accuracy_plain", formats.share),
        "with units set to 0": number_cell("accuracy_without", formats.share),
        "ReLUs compared": number_cell("layers_compared", formats.count),
        "skipped": number_cell("layers_skipped", formats.count),
        "fit": number_cell("fit_seconds", formats.seconds),
        "images added": number_cell("added", formats.count),
        "sums of these": number_cell("shell_seconds", formats.seconds),
        "all sums": number_cell("chain_seconds", formats.seconds),
    }
    caption = (
        "Units of each set, accuracy of a class with its units set to 0, and cost: means over classes, repeats and "
        "seeds. The sums of a budget begin with those of the next smaller one"
    )
    return print_table(rows, caption, cells, csv="data/units.csv")
