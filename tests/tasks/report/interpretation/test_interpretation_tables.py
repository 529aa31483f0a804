"""Tables of the interpretation page from data frames."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from tasks.report.cells import Table
from tasks.report.formats import NBSP
from tasks.report.interpretation import tables
from tasks.report.interpretation.results import InterpretationResults

Classes = Callable[..., pd.DataFrame]


def plain(table: Table) -> list[list[str]]:
    """Return the cells with plain spaces."""
    return [[cell.replace(NBSP, " ") for cell in row] for row in table.rows]


def test_distances_stand_in_one_row_without_costs(page: InterpretationResults) -> None:
    rows = page.over_repeats.copy()
    rows.loc[0, ["phi_0_mean", "phi_0_std", "left_out_mean"]] = [0.1234, 0.0456, 1.0]
    table = tables.distance_table(rows)
    assert plain(table)[0][:4] == ["moderate", "10 %", "42", "0.123 ± 0.046"]
    assert plain(table)[0][-1] == "1"  # classes left out; costs are in the table of budgets
    assert table.groups == (("", 3), ("α = 0", 2), ("α = 0.5", 2), ("α = 1", 2), ("", 1))
    assert [column.title for column in table.columns[3:5]] == ["Φ", "null"]
    assert all(len(row) == len(table.columns) == sum(span for _, span in table.groups) for row in table.rows)


def test_a_single_draw_has_no_spread(page: InterpretationResults) -> None:
    over_repeats = page.over_repeats
    moderate = over_repeats["selector"] == "moderate"  # one draw; random has three
    assert over_repeats.loc[moderate, "phi_0_std"].isna().all()
    assert over_repeats.loc[~moderate, "phi_0_std"].notna().all()
    by_selector = {row[2]: row[3] for row in plain(tables.robustness_table(page.robustness))}
    assert "±" not in by_selector["moderate"]
    assert "±" in by_selector["random"]


def test_absent_columns_and_nan_are_dashes(page: InterpretationResults) -> None:
    rows = page.over_repeats.assign(phi_0_mean=np.nan).drop(columns=["null_0_mean", "n_kept_mean"])
    assert plain(tables.distance_table(rows))[0][2:5] == ["–", "–", "–"]


def test_class_table_averages_repeats_and_keeps_unknown_apart(build_classes: Classes) -> None:
    classes = build_classes(("cat", "dog"), {"random": 2, "moderate": 1}, (0.1, 0.5))
    at = (classes["selector"] == "random") & (classes["budget"] == 0.1) & (classes["class_name"] == "cat")
    classes.loc[at, "distance_0"] = [0.4, 0.6]
    classes.loc[(classes["selector"] == "moderate") & (classes["class_name"] == "dog"), "distance_0"] = np.nan
    table = tables.class_table(classes, "data/classes.csv")
    assert table.groups == (("", 1), ("moderate", 2), ("random", 2))
    assert plain(table)[0][0] == "0 cat"
    assert plain(table)[0][3] == "0.500"
    assert plain(table)[1][:3] == ["1 dog", "–", "–"]
    np.testing.assert_allclose(table.columns[3].shades[0], 0.5 / (np.pi / 2))
    assert table.columns[1].shades[1] == 0


def test_class_table_shows_the_worst_of_many_classes_and_says_so(build_classes: Classes) -> None:
    names = tuple(f"class {i}" for i in range(tables.MAX_CLASSES + 20))
    classes = build_classes(names, {"random": 1}, (0.1,))
    classes["distance_0"] = classes["label"] / 100
    table = tables.class_table(classes, "")
    assert len(table.rows) == tables.MAX_CLASSES
    assert table.rows[0][0] == "119 class 119"
    assert "Of 120 classes the 100 with the largest mean distance" in table.note
