"""The tables of the coreset question, by hand on two classes."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from tasks.metrics.summary import by_budget, over_repeats, robustness_table

DISTANCES = {  # by (repeat, budget, label) for the random selector
    (0, 0.1, 0): 0.6, (0, 0.1, 1): 0.8, (0, 0.5, 0): 0.2, (0, 0.5, 1): 0.4, (0, 1.0, 0): 0.0, (0, 1.0, 1): 0.0,
    (1, 0.1, 0): 0.5, (1, 0.1, 1): np.nan, (1, 0.5, 0): 0.1, (1, 0.5, 1): 0.3, (1, 1.0, 0): 0.0, (1, 1.0, 1): 0.0,
}  # fmt: skip


def row(selector: str, repeat: int, budget: float, label: int, distance: float) -> dict[str, object]:
    """One class's row; accuracy 0.5 + 0.1 label, seconds 2, the rest constant."""
    return {
        "network": "net", "seed": 0, "interpreter": "ice", "selector": selector, "repeat": repeat, "budget": budget,
        "label": label, "class_name": "ab"[label], "n_class": 20, "n_kept": round(20 * budget), "n_rows": 320,
        "distance_0": distance, "distance_05": 2 * distance, "distance_1": 3 * distance,
        "null_0": 1.0 + label, "null_05": 1.0, "null_1": np.nan, "self_0": 0.0, "self_05": 0.0, "self_1": 0.0,
        "rank_reference": 6, "rank": 5 + label, "accuracy": 0.5 + 0.1 * label, "accuracy_top5": 1.0,
        "agreement": 0.9, "accuracy_plain": 0.95, "accuracy_plain_top5": 1.0, "error_fit": 0.3, "error_val": 0.4,
        "fidelity": 0.1, "seconds": 2.0, "n_val": 7,
    }  # fmt: skip


def only(table: pd.DataFrame, **values: object) -> "pd.Series[float]":
    """The one row with these values."""
    for column, value in values.items():
        table = table[table[column] == value]
    assert len(table) == 1
    return table.iloc[0]


@pytest.fixture
def classes() -> pd.DataFrame:
    rows = [row("random", *key, distance) for key, distance in DISTANCES.items()]
    rows += [row("moderate", 0, budget, label, 0.25) for budget, label in product((0.1, 0.5), (0, 1))]
    return pd.DataFrame(rows).sample(frac=1, random_state=3)


def test_by_budget_averages_over_classes(classes: pd.DataFrame) -> None:
    table = by_budget(classes)
    assert len(table) == 2 + 6
    first, holed = (only(table, selector="random", repeat=repeat, budget=0.1) for repeat in (0, 1))
    np.testing.assert_allclose(first[["phi_0", "phi_05", "phi_1"]].astype(float), [0.7, 1.4, 2.1])
    np.testing.assert_allclose(first[["accuracy", "rank", "null_0", "self_0"]].astype(float), [0.55, 5.5, 1.5, 0.0])
    assert np.isnan(first["null_1"])
    assert (first["n_classes"], first["left_out"], first["n_kept"], first["seconds"]) == (2, 0, 4, 4.0)
    assert (holed["phi_0"], holed["left_out"], holed["n_classes"]) == (0.5, 1, 2)


def test_measures_of_units_are_means_over_classes_where_there_are_any(classes: pd.DataFrame) -> None:
    assert "units" not in by_budget(classes)
    units = classes.assign(units=classes["label"] + 1.0, accuracy_without=0.25, layers_skipped=2.0 * classes["label"])
    units.loc[units["selector"] == "moderate", ["units", "accuracy_without", "layers_skipped"]] = np.nan
    table = by_budget(units)
    random = only(table, selector="random", repeat=0, budget=0.1)
    assert (random["units"], random["accuracy_without"], random["layers_skipped"]) == (1.5, 0.25, 1.0)
    assert np.isnan(only(table, selector="moderate", budget=0.1)["units"])


def test_rows_are_those_of_one_distance(classes: pd.DataFrame) -> None:
    whole = classes.assign(n_rows=320 + 80 * classes["label"])
    assert only(by_budget(whole), selector="random", repeat=0, budget=0.1)["n_rows"] == 360.0
    units = whole.assign(layers_compared=np.where(whole["selector"] == "random", 4.0, np.nan))
    table = by_budget(units)
    assert only(table, selector="random", repeat=0, budget=0.1)["n_rows"] == 90.0  # 320 / 4 and 400 / 4
    assert only(table, selector="moderate", budget=0.1)["n_rows"] == 360.0
    assert np.isnan(only(by_budget(whole.assign(layers_compared=0.0)), selector="moderate", budget=0.1)["n_rows"])


def test_over_repeats_gives_mean_and_std_of_the_draws(classes: pd.DataFrame) -> None:
    table = over_repeats(by_budget(classes))
    assert len(table) == 5
    half = only(table, selector="random", budget=0.5)  # Phi 0.3 and 0.2
    np.testing.assert_allclose(half[["phi_0_mean", "phi_0_std"]].astype(float), [0.25, 0.1 / 2**0.5])
    assert half["n_draws"] == 2
    single = only(table, selector="moderate", budget=0.5)
    assert (single["phi_0_mean"], single["n_draws"]) == (0.25, 1)
    assert np.isnan(single["phi_0_std"])  # unknown, not certain
    assert "seed_mean" not in table.columns


def test_robustness_table_is_over_budgets_then_draws(classes: pd.DataFrame) -> None:
    table = robustness_table(by_budget(classes)).set_index("selector")
    random = table.loc["random"]  # Phi at 10 % and 50 %: (0.7, 0.3) and (0.5, 0.2)
    np.testing.assert_allclose(random[["mean_0", "std_0"]].astype(float), [(0.5 + 0.35) / 2, (0.2 + 0.15) / 2])
    np.testing.assert_allclose(random[["mean_0_spread", "std_0_spread"]].astype(float), [0.15 / 2**0.5, 0.05 / 2**0.5])
    np.testing.assert_allclose(random["mean_1"], 3 * random["mean_0"])
    assert (random["n_draws"], random["left_out"]) == (2, 1)
    assert random["n_budgets"] == 2
    # nulls are 1.5 (classes 1.0 and 2.0) at every budget; at alpha = 1 none is known
    assert random["null_0"] == 1.5
    assert np.isnan(random["null_1"])
    moderate = table.loc["moderate"]
    assert (moderate["mean_0"], moderate["std_0"]) == (0.25, 0.0)
    assert np.isnan(moderate["mean_0_spread"])
    assert list(table[["network", "interpreter"]].iloc[0]) == ["net", "ice"]


def test_only_the_whole_budget_has_no_robustness(classes: pd.DataFrame) -> None:
    table = robustness_table(by_budget(classes[classes["budget"] == 1.0]))
    assert np.isnan(table["mean_0"]).all()
    assert (table["left_out"] == 0).all()
