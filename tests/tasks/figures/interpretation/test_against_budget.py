"""The figures against the budget: what plotly.js will draw."""

import json

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from tasks.figures.interpretation.against_budget import accuracy_views, distance_views
from tasks.figures.views import View

TABLE = pd.DataFrame(
    {
        "selector": ["random", "random", "random", "moderate", "moderate", "moderate"],
        "budget": [0.1, 0.5, 1.0] * 2,
        "phi_0_mean": [0.8, 0.2, 0.0, 0.7, np.nan, 0.0],
        "phi_0_std": [0.05, 0.02, 0.0, np.nan, np.nan, np.nan],
        "null_0_mean": [1.2, 1.3, 1.4, 1.2, 1.3, 1.4],
        "accuracy_mean": [0.9, 0.94, 0.95, 0.91, 0.94, 0.95],
        "accuracy_std": [0.01, 0.005, 0.0, np.nan, np.nan, np.nan],
        "accuracy_plain_mean": 0.97,
        "agreement_mean": [0.88, 0.92, 0.93, 0.9, 0.92, 0.93],
    }
)


def trace(view: View, name: str) -> dict[str, list[float]]:
    """Return the numbers of one trace, through JSON as the page gets them."""
    (found,) = [part for part in json.loads(json.dumps(view.data, allow_nan=False)) if part["name"] == name]
    return {axis: found[axis] for axis in "xy"}


def test_band_runs_forth_along_mean_plus_std_and_back_along_mean_minus_std() -> None:
    band = trace(distance_views(TABLE)[0], "random ± 1 std")
    np.testing.assert_allclose(band["x"], [10, 50, 100, 100, 50, 10])
    np.testing.assert_allclose(band["y"], [0.85, 0.22, 0.0, 0.0, 0.18, 0.75], atol=1e-12)
    accuracy = trace(accuracy_views(TABLE)[0], "random ± 1 std")
    np.testing.assert_allclose(accuracy["y"], [91, 94.5, 95, 95, 93.5, 89])


def test_lines_null_and_its_half() -> None:
    view = distance_views(TABLE)[0]
    assert trace(view, "moderate") == {"x": [10, 50, 100], "y": [0.7, None, 0.0]}
    assert trace(view, "null distance")["y"] == pytest.approx([1.2, 1.3, 1.4])
    assert trace(view, "half of the null")["y"] == pytest.approx([0.6, 0.65, 0.7])
    assert "moderate ± 1 std" not in [part["name"] for part in view.data]


def test_only_views_with_values_are_offered() -> None:
    assert [view.label for view in distance_views(TABLE)] == ["α = 0"]
    assert [view.label for view in accuracy_views(TABLE)] == ["top-1", "agreement"]
    empty = TABLE.assign(phi_0_mean=np.nan, null_0_mean=np.nan)
    assert [view.label for view in distance_views(empty)] == ["α = 0"]


def test_unmodified_accuracy_is_a_line_of_the_accuracies_only() -> None:
    top1, agreement = accuracy_views(TABLE)
    assert trace(top1, "unmodified network")["y"] == pytest.approx([97, 97, 97])
    assert "unmodified network" not in [part["name"] for part in agreement.data]


def test_the_level_with_95_percent_is_the_mean_over_selectors_over_all_budgets() -> None:
    assert "95 % of the data" not in [part["name"] for part in distance_views(TABLE)[0].data]
    table = TABLE.assign(budget=[0.1, 0.95, 1.0] * 2, phi_0_mean=[0.8, 0.2, 0.0, 0.7, 0.3, 0.0])
    assert trace(distance_views(table)[0], "95 % of the data") == {"x": [10, 95, 100], "y": pytest.approx([0.25] * 3)}
    assert trace(accuracy_views(table)[0], "95 % of the data")["y"] == pytest.approx([94.0] * 3)


def test_units_have_the_accuracy_without_them_and_no_empty_views() -> None:
    table = TABLE.drop(columns=["accuracy_mean", "agreement_mean"]).assign(accuracy_without_mean=0.4)
    (view,) = accuracy_views(table)
    assert view.label == "top-1 without the units"
    assert trace(view, "random")["y"] == pytest.approx([40] * 3)
    assert trace(view, "unmodified network")["y"] == pytest.approx([97] * 3)
    assert "reconstructed" not in view.alt


def test_alt_text_says_the_ends_of_each_line() -> None:
    alt = distance_views(TABLE)[0].alt
    assert "random: 0.800 rad at 10 % to 0.000 rad at 100 %." in alt
    assert "The null distance lies between 1.200 and 1.400 rad." in alt
    assert "moderate: 0.700 rad at 10 %." in distance_views(TABLE[:4])[0].alt
    assert "random: no value." in distance_views(TABLE[:1].assign(phi_0_mean=np.nan))[0].alt


def test_one_budget_gives_points_and_a_dash_for_the_null() -> None:
    view = distance_views(TABLE[:1])[0]
    modes = {str(part["name"]): part["mode"] for part in view.data}
    assert modes["null distance"] == "markers"
    assert trace(view, "random") == {"x": [10], "y": [0.8]}


def test_small_budgets_get_a_logarithmic_axis() -> None:
    axis = go.Figure(layout=distance_views(TABLE.assign(budget=[0.01, 0.1, 1.0] * 2))[0].layout).layout.xaxis
    assert axis.type == "log"
    assert list(axis.ticktext) == ["1 %", "10 %", "100 %"]


def test_names_cannot_carry_markup_into_plotly() -> None:
    view = distance_views(TABLE.assign(selector="<b>x</b>"))[0]
    assert {"&lt;b&gt;x&lt;/b&gt;"} == {part["name"] for part in view.data if part["mode"] == "lines+markers"}


@pytest.mark.parametrize("views", [distance_views(TABLE), accuracy_views(TABLE), distance_views(TABLE[:1])])
def test_plotly_knows_every_property(views: list[View]) -> None:
    for view in views:
        go.Figure(data=view.data, layout=view.layout)  # raises on an unknown property or a value out of range
