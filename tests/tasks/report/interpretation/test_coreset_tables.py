"""Tables and sentences on coresets: costs in the same row, neighbours that do not count, transfer, topics."""

import numpy as np
import pandas as pd
import pytest

from tasks.report.formats import NBSP
from tasks.report.interpretation.coresets import (
    budget_table,
    neighbour_findings,
    topics_table,
    transfer_findings,
    transfer_table,
)


def selections(distances: list[float], **settings: object) -> pd.DataFrame:
    """Return what dgpruning logs of classes."""
    base: dict[str, object] = {
        "network": "net",
        "selector": "dgpruning",
        "gamma_f": 1.0,
        "gamma_r": 0.1,
        "scale": "none",
        "combine": "sum",
        "message": "weighted",
    }
    return pd.DataFrame([{**base, **settings, "label": i, "median_distance": d} for i, d in enumerate(distances)])


@pytest.mark.parametrize(
    ("distance", "scale", "said"),
    [
        (1.0, "none", "so neighbours count (exp(−gamma_f d) is 0.368)."),
        (
            10.0,
            "none",
            "so exp(−gamma_f d) is 5e-05. Neighbours add nothing to a sample's density; they still lower it",
        ),
        (
            100.0,
            "none",
            "so exp(−d) is at most 5e-05. Neighbours play no part, and the samples farthest from the centre",
        ),
        (100.0, "median", "and distances are divided by it, so neighbours count."),
    ],
)
def test_vanishing_exponentials_are_named(distance: float, scale: str, said: str) -> None:
    (finding,) = neighbour_findings(selections([0.5, distance, 1000.0], scale=scale))  # the median over classes
    assert said in finding.text
    assert f"the median distance to a neighbour is {distance:.3g}".rstrip("0") in finding.text.replace(".000", "")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        # the whole density of a chosen sample is taken from its neighbours, however far they are
        ({"message": "absolute"}, "Neighbours add nothing to a sample's density; they still lower it (all of theirs)."),
        # exp(-0 d) = 1: neighbours add their whole score
        (
            {"gamma_f": 0.0},
            "so neighbours add to a sample's density (exp(−gamma_f d) is 1.000). Samples that are chosen",
        ),
        ({"combine": "product"}, "so neighbours count: a density is a product with what they add."),
    ],
)
def test_far_neighbours_may_count_by_other_settings(settings: dict[str, object], said: str) -> None:
    (finding,) = neighbour_findings(selections([100.0], **settings))
    assert said in finding.text
    assert "play no part" not in finding.text


def test_products_with_weights_that_underflow_are_named() -> None:
    (finding,) = neighbour_findings(selections([1000.0], combine="product"))  # exp(-1000) is 0 in float64
    assert "Densities are products with it: most are 0" in finding.text


def test_distances_of_zero_are_not_divided_by() -> None:
    (finding,) = neighbour_findings(selections([0.0], scale="median"))
    assert finding.text.endswith("so neighbours count (exp(−gamma_f d) is 1.000).")


def test_selectors_without_distances_say_nothing() -> None:
    assert neighbour_findings(selections([np.nan, np.nan])) == []
    assert neighbour_findings(pd.DataFrame()) == []


def test_distance_units_and_cost_are_in_one_row() -> None:
    row = {
        "interpreter": "vebi", "selector": "random", "budget": 0.1, "n_kept_mean": 42.0, "phi_0_mean": 0.5,
        "phi_0_std": 0.05, "null_0_mean": 1.2, "accuracy_without_mean": 0.25, "accuracy_plain_mean": 0.97,
        "units_mean": 2.5, "layers_skipped_mean": 1.0, "selection_seconds_mean": 0.5, "selection_peak_mb_mean": 300.0,
        "features_seconds_mean": 75.0, "features_peak_mb_mean": 1500.0,
    }  # fmt: skip
    table = budget_table(pd.DataFrame([row]))
    found = dict(zip([column.title for column in table.columns], table.rows[0], strict=True))
    cells = [cell.replace(NBSP, " ") for cell in table.rows[0]]
    assert cells[:6] == ["vebi", "random", "10 %", "42", "0.500 ± 0.050", "1.200"]
    assert (found["without units"].replace(NBSP, " "), found["units"], found["layers skipped"]) == (
        "25.0 %",
        "2.5",
        "1",
    )
    assert cells[-8:] == ["0.50 s", "300 MB", "1 min 15 s", "1.5 GB", "–", "–", "–", "–"]
    assert [head for head, _ in table.groups][-4:] == ["selection", "features", "evaluation", "scores"]
    assert sum(span for _, span in table.groups) == len(table.columns) == len(cells)


def test_transfer_counts_a_difference_beyond_two_standard_errors() -> None:
    base = {"network": "b", "coreset_from": "a", "n_classes": 10, "accuracy_error": 0.01, "selectors": ["moderate"]}
    summary = pd.DataFrame(
        [
            base | {"interpreter": "ice", "phi_0_difference": 0.03, "phi_0_error": 0.01, "accuracy_difference": -0.02},
            base | {"interpreter": "topics", "phi_0_difference": -0.03, "phi_0_error": 0.01},
            base | {"interpreter": "vebi", "phi_0_difference": 0.02, "phi_0_error": 0.01},
        ]
    )
    (finding,) = transfer_findings(summary)
    text = finding.text.replace(NBSP, " ")
    assert text.startswith("b with coresets of a (moderate), next to its own, budgets below 100 %: ")
    assert "ice: Φ +0.030 ± 0.010 rad, farther from the full data; accuracy −2.0 ± 1.0 points." in text
    assert "topics: Φ −0.030 ± 0.010 rad, nearer to the full data." in text
    assert "vebi: Φ +0.020 ± 0.010 rad, no difference beyond noise." in text
    assert transfer_findings(pd.DataFrame(columns=["network", "coreset_from"])) == []


@pytest.mark.parametrize(
    ("difference", "error", "said"),
    [
        (0.03, np.nan, "ice: Φ +0.030 rad, noise is unknown with a single class."),
        (1e-12, 0.0, "ice: Φ +0.000 ± 0.000 rad, no difference beyond noise."),  # rounding
        (np.nan, np.nan, "ice: no class has a distance with both coresets."),
    ],
)
def test_transfer_does_not_judge_what_is_unknown(difference: float, error: float, said: str) -> None:
    row = {"network": "b", "coreset_from": "a", "selectors": ["moderate"], "interpreter": "ice"}
    summary = pd.DataFrame([row | {"phi_0_difference": difference, "phi_0_error": error}])
    (finding,) = transfer_findings(summary)
    assert finding.text.replace(NBSP, " ").endswith(said)


def test_transferred_rows_have_own_transferred_and_difference() -> None:
    row = {
        "network": "b", "coreset_from": "a", "interpreter": "ice", "selector": "moderate", "budget": 0.1,
        "phi_0_own": 0.2, "phi_0_transferred": 0.3, "phi_0_difference": 0.1, "phi_0_error": 0.02,
        "accuracy_own": 0.9, "accuracy_transferred": 0.8, "accuracy_difference": np.nan, "accuracy_error": np.nan,
    }  # fmt: skip
    (cells,) = transfer_table(pd.DataFrame([row])).rows
    assert [cell.replace(NBSP, " ") for cell in cells] == [
        *("b", "a", "ice", "moderate", "10 %", "0.200", "0.300", "+0.100 ± 0.020", "90.0 %", "80.0 %", "–"),
    ]


def test_topics_are_listed_by_their_importance_with_near_duplicates() -> None:
    topics = pd.DataFrame(
        {
            "network": "net", "seed": 0, "selector": "random", "repeat": 0, "budget": 0.1, "topic": [0, 1, 2, 3],
            "shapley": [0.1, 0.4, -0.2, 0.3], "nearest_cosine": [0.2, 0.97, 0.97, 0.1], "completeness": 0.6,
            "accuracy": 0.64, "duplicates": 1,
        }
    )  # fmt: skip
    (cells,) = topics_table(topics).rows
    assert [cell.replace(NBSP, " ") for cell in cells] == [
        *("net", "0", "random", "10 %", "0.600", "64.0 %", "1", "0.970", "1 (0.400), 3 (0.300), 0 (0.100)"),
    ]
