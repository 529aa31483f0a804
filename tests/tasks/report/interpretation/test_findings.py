"""The headline sentences say what the tables say, and no more."""

import numpy as np
import pandas as pd

from tasks.figures.interpretation.budgets import Series
from tasks.report.formats import NBSP
from tasks.report.interpretation.findings import findings, smallest_budget

NULLS = {0.1: 1.2, 0.2: 1.2, 0.5: 1.2, 1.0: 1.2}


def line(*means: float, std: float = float("nan")) -> Series:
    """Return a line over the budgets 10, 20, 50 and 100 %."""
    return Series("random", np.array(list(NULLS)), np.array(means), np.full(len(NULLS), std))


def say(series: Series) -> str:
    """Return the sentence with plain spaces."""
    return smallest_budget(series, NULLS).replace(NBSP, " ")


def test_budget_is_the_first_from_which_on_the_distance_stays_below_half_of_the_null() -> None:
    text = say(line(0.5, 0.7, 0.4, 0.0, std=0.02))  # 0.5 is below 0.6, but 0.7 at twice the budget is not
    assert "from 50 % on (0.400 ± 0.020 rad, null 1.200 rad)" in text


def test_the_smallest_budget_tried_is_named_as_such() -> None:
    assert "from 10 % on, the smallest budget tried (0.500 rad" in say(line(0.5, 0.4, 0.3, 0.0))


def test_full_data_never_counts() -> None:
    text = say(line(1.1, 1.0, 0.9, 0.0))
    assert "does not stay below half of the null from any budget on" in text
    assert "It is closest at 50 %: 0.900 rad" in text


def test_unknown_distances_are_passed_over() -> None:
    assert "from 50 %" in say(line(0.9, np.nan, 0.4, 0.0))
    assert "no distance is known at a budget below 100 %" in say(line(np.nan, np.nan, np.nan, 0.0))


def over_repeats(**columns: object) -> pd.DataFrame:
    """Return two selectors at two budgets."""
    base: dict[str, object] = {
        "selector": ["random", "moderate"] * 2,
        "budget": [0.1, 0.1, 1.0, 1.0],
        "phi_0_mean": [0.5, 0.6, 0.0, 0.0],
        "phi_0_std": [0.02, np.nan, 0.0, np.nan],
        "null_0_mean": 1.3,
        "accuracy_mean": [0.9, 0.88, 0.95, 0.95],
        "accuracy_std": [0.01, np.nan, 0.0, np.nan],
        "accuracy_plain_mean": 0.97,
        "left_out_mean": 0.0,
    }
    return pd.DataFrame(base | columns)


def robust(*means: float, spread: float) -> pd.DataFrame:
    """Return the robustness of two selectors, the second drawn once."""
    return pd.DataFrame(
        {"selector": ["random", "moderate"], "mean_0": means, "mean_0_spread": [spread, np.nan]},
    )


def texts(rows: pd.DataFrame, robustness: pd.DataFrame) -> dict[str, str]:
    """Return the last sentence under each word, with plain spaces."""
    return {finding.about: finding.text.replace(NBSP, " ") for finding in findings(rows, robustness)}


def test_selectors_are_only_told_apart_beyond_twice_the_spread() -> None:
    near = texts(over_repeats(), robust(0.50, 0.53, spread=0.02))["Selector"]
    assert "random 0.500 ± 0.020, moderate 0.530 rad" in near
    assert "no difference is shown" in near
    far = texts(over_repeats(), robust(0.60, 0.53, spread=0.02))["Selector"]
    assert "nearest first: moderate 0.530, random 0.600 ± 0.020 rad. The first two differ by more than twice" in far
    once = texts(over_repeats(), robust(0.60, 0.53, spread=np.nan))["Selector"]
    assert "a difference may be chance" in once
    alike = texts(over_repeats(), robust(0.60, 0.60, spread=0.0))["Selector"]  # all draws are alike
    assert "The first two differ by at most twice the spread over repeats: no difference is shown." in alike


def test_one_selector_is_not_compared() -> None:
    assert "Selector" not in texts(over_repeats(), robust(0.5, np.nan, spread=0.02))


def test_accuracy_sets_full_and_smallest_budget_beside_the_unmodified_network() -> None:
    text = texts(over_repeats(), robust(0.5, 0.6, spread=0.1))["Accuracy"]
    assert "classifies 97.0 % of the validation images correctly" in text
    assert "learned on 100 % of the data it classifies 95.0 %, on 10 %: random 90.0 ± 1.0 %, moderate 88.0 %." in text
    only_full = texts(over_repeats()[2:], robust(0.5, 0.6, spread=0.1))["Accuracy"]
    assert only_full.endswith("learned on 100 % of the data it classifies 95.0 %.")
    assert "Accuracy" not in texts(over_repeats(accuracy_mean=np.nan), robust(0.5, 0.6, spread=0.1))


def test_units_are_told_by_the_sentences_of_units_alone() -> None:
    said = texts(over_repeats(units_mean=1.0, never_predicted_mean=3.0), robust(0.5, 0.6, spread=0.1))
    assert not {"Units", "Few units", "Never predicted"} & set(said)


def test_classes_left_out_are_told_where_there_are_any() -> None:
    assert "Left out" not in texts(over_repeats(), robust(0.5, 0.6, spread=0.1))
    messages = texts(over_repeats(left_out_mean=[1.0, 2.5, 0.0, 0.0]), robust(0.5, 0.6, spread=0.1))["Left out"]
    assert "with moderate at 10 %: 2.5 on average" in messages


def test_features_that_rebuild_nothing_are_named() -> None:
    rebuilt = texts(over_repeats(error_val_mean=[0.99, 0.8, 0.7, 0.9]), robust(0.5, 0.6, spread=0.1))
    assert "Empty" not in rebuilt
    assert "Empty" not in texts(over_repeats(error_val_mean=np.nan), robust(0.5, 0.6, spread=0.1))
    said = texts(over_repeats(error_val_mean=[1.0, np.nan, 0.7, 1.0]), robust(0.5, 0.6, spread=0.1))["Empty"]
    assert said.startswith("At 2 of 3 selectors and budgets nothing of the maps is rebuilt")


def test_maps_that_are_rebuilt_worse_than_zeros_are_not_empty() -> None:
    known = robust(0.5, 0.6, spread=0.1)
    assert "Empty" not in texts(over_repeats(error_val_mean=[4.5, 7.4, 1.2, 4.4]), known)
    said = texts(over_repeats(error_val_mean=[4.5, 1.0, 0.99999, 0.9]), known)["Empty"]
    assert said.startswith("At 2 of 4 selectors and budgets nothing of the maps is rebuilt")


def test_a_distance_without_a_null_is_known() -> None:
    said = smallest_budget(line(0.5, 0.4, 0.3, 0.0), {}).replace(NBSP, " ")  # one evaluated image of each class
    assert said.startswith("random: no null distance is known at a budget below 100 %")
    assert said.endswith("so nothing can be said.")
