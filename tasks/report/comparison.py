"""Runs side by side: which settings differ, and the main figures of each question. Tables, and a page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from tasks.report import formats
from tasks.report.cells import Column, Table
from tasks.report.measures import ACCURACY, Compared, compare, difference, figures_table, printed
from tasks.report.opening import MAX_BARS, Bar, Opening, bar_share
from tasks.report.pages import RunFacts
from tasks.report.site import render_next_to

LEFT_OUT = ("name", "store", "cluster", "report")  # of a config: what does not change a result
MAX_VALUE = 60  # characters of a setting
TEMPLATE = "templates/compare.html.j2"


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes
    ----------
    runs : names
    settings : values by name of the run, by key of the config; only keys that differ, values as text, "" without one
    columns : networks, named by run where each run has one
    figures : the measures
    """

    runs: tuple[str, ...]
    settings: Mapping[str, Mapping[str, str]]
    columns: tuple[str, ...]
    figures: tuple[Compared, ...]

    def document(self) -> dict[str, object]:
        """Return the comparison for JSON; an unknown spread is null."""
        return {
            "runs": list(self.runs),
            "settings": {key: dict(values) for key, values in self.settings.items()},
            "figures": [
                {
                    "question": one.question or "network",
                    "figure": one.measure,
                    "unit": one.unit,
                    "values": {
                        name: {**vars(each), "std": each.std if each.std == each.std else None}
                        for name, each in one.figures.items()
                    },
                }
                for one in self.figures
            ],
        }

    def sentence(self) -> str:
        """Say how the runs differ."""
        n = len(self.settings)
        one = next((each for each in self.figures if each.measure == ACCURACY), None)
        changed = f"{n} setting{'' if n == 1 else 's'} differ{'s' if n == 1 else ''}" if n else "No setting differs"
        if len(self.runs) == 1:
            changed = f"Run {self.runs[0]} has {len(self.columns)} network{'' if len(self.columns) == 1 else 's'}"
        if one is None:
            return f"{changed}. The accuracy of the networks is not known."
        named = ", ".join(f"{name} {printed(each, one.unit)}" for name, each in one.figures.items())
        gap = (
            f", a difference of {difference(one, *self.columns)}" if len(one.figures) == len(self.columns) == 2 else ""
        )
        return f"{changed}. Right answers on held-out images: {named}{gap}."

    def tables(self) -> tuple[Table, ...]:
        """Return the figures, and the settings that differ."""
        figures = figures_table(self.columns, self.figures)
        if len(self.runs) == 1:
            return (figures,)
        columns = (Column("setting", numeric=False), *(Column(run, numeric=False, wraps=True) for run in self.runs))
        rows = tuple((key, *(_short(values[run]) for run in self.runs)) for key, values in self.settings.items())
        return figures, Table("Settings that differ; – where a run does not have one", columns, rows)


def compare_runs(configs: Mapping[str, Mapping[str, object]], measures: Mapping[str, pd.DataFrame]) -> Comparison:
    """Compare runs.

    Parameters
    ----------
    configs : the whole config of each run, by name
    measures : the main figures of each run, as `tasks.report.measures` describes them
    """
    columns, figures = compare(measures)
    return Comparison(tuple(configs), differing(configs), tuple(columns), tuple(figures))


def differing(configs: Mapping[str, Mapping[str, object]]) -> dict[str, dict[str, str]]:
    """Return the settings that differ between configs: value as text by name of the run, by dotted key."""
    flat = {run: _flat({k: v for k, v in config.items() if k not in LEFT_OUT}) for run, config in configs.items()}
    keys = dict.fromkeys(key for values in flat.values() for key in values)
    found = {key: {run: values.get(key, "") for run, values in flat.items()} for key in keys}
    return {key: values for key, values in found.items() if len(set(values.values())) > 1}


def comparison_page(comparison: Comparison, facts: RunFacts, pages: Sequence[str], here: str) -> bytes:
    """Return the page; `facts` and `pages` are of the first run, next to whose pages it lies."""
    one = next((each for each in comparison.figures if each.measure == ACCURACY), None)
    shown = () if one is None else tuple(one.figures.items())[:MAX_BARS]
    opening = Opening(
        answer=comparison.sentence(),
        caption="Right answers on held-out images.",
        bars=tuple(Bar(name, bar_share(each.mean), printed(each, "share")) for name, each in shown),
    )
    content = {"runs": comparison.runs, "tables": comparison.tables()}
    context: dict[str, object] = {"here": here, "has_figures": False, "content": content, "opening": opening}
    return render_next_to(facts, pages, TEMPLATE, context)


def _flat(value: object, key: str = "") -> dict[str, str]:
    """Return the leaves of a config as text, by dotted key; sections that are not asked for are left out."""
    if isinstance(value, Mapping) and value:
        return {
            name: text
            for part, each in value.items()
            for name, text in _flat(each, f"{key}.{part}" if key else str(part)).items()
        }
    return {} if value is None else {key: str(value)}


def _short(text: str) -> str:
    """Cut a value for a table."""
    return (text if len(text) <= MAX_VALUE else f"{text[: MAX_VALUE - 1]}…") or formats.MISSING
