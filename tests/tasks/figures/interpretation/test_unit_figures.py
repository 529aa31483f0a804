"""Figures of units: coverage and paths from tables worked by hand."""

import io
from typing import Any

import numpy as np
from matplotlib import image as matplotlib_image

from tasks.figures.interpretation.coverage_map import coverage_of, coverage_views
from tasks.figures.interpretation.mu_paths import ClassPath, class_paths, path_views
from tasks.figures.interpretation.unit_still import coverage_by_layer, units_against_mu
from tests.tasks.report.interpretation.unit_tables import invented_units

UNITS = invented_units()
FULL = UNITS.paths[UNITS.paths["title"] == "full data"]


def test_coverage_is_units_and_share_of_the_full_datas() -> None:
    found = coverage_of(UNITS.coverage)
    assert (found.calls, found.sets) == ((0, 1), ("random 10 %", "moderate 10 %"))
    np.testing.assert_array_equal(found.units, [[1, 1], [2, 2]])
    np.testing.assert_array_equal(found.full, [0, 4])
    np.testing.assert_array_equal(found.shared, [[np.nan, np.nan], [0.25, 0.25]])
    assert coverage_of(UNITS.coverage[UNITS.coverage["selector"] == "random"]).sets == ("10 %",)


def test_a_selector_has_two_views() -> None:
    views = coverage_views(UNITS.coverage)
    assert [v.label for v in views] == [f"{s}: {m}" for s in ("random", "moderate") for m in ("units", "in common")]
    units: Any = views[0].data[0]
    common: Any = views[1].data[0]
    assert units["z"] == [[0.0, 1.0], [4.0, 2.0]]  # the full data first
    assert common["z"] == [[None], [25.0]]
    assert units["text"][1][0] == "ReLU 2 of 2, full data: 4.0"
    assert common["text"][0] == ["ReLU 1 of 2: none on the full data"]
    axis: Any = views[0].layout["yaxis"]
    assert axis["ticktext"] == ["ReLU 1 of 2", "ReLU 2 of 2"]
    assert views[0].alt == "Units of a class by ReLU, random: 4.0 on the full data, 3.0 at 10 %."
    assert views[1].alt == "Share of the full data's units that random finds too: 25 % at 10 %."


def test_full_budgets_and_a_full_data_without_units_are_drawn() -> None:
    empty = UNITS.coverage.assign(units_reference=0.0, units_shared=0.0)
    assert coverage_views(empty)[1].alt.endswith("the full data has none.")
    assert coverage_views(UNITS.coverage.assign(budget=1.0)) == []


def test_units_between_breakpoints_are_those_of_the_next() -> None:
    path = ClassPath("a", np.array([0.0, 2.0, 6.0]), np.array([0.0, 1.0, 3.0]))
    np.testing.assert_array_equal(path.at(np.array([0, 0.1, 2, 2.1, 6, 99])), [0, 1, 1, 3, 3, 3])
    zero, one = class_paths(FULL)
    assert (zero.name, one.name) == ("zero", "<b>one")
    np.testing.assert_array_equal(zero.mu, [0, 2, 6, 12])


def test_the_path_ends_at_the_chosen_mu_which_is_marked() -> None:
    view, other = path_views(UNITS.paths, 10.0)
    assert (view.label, other.label) == ("full data", "random 10 %")
    lines: list[Any] = view.data
    assert (lines[0]["x"], lines[0]["y"]) == ([0, 2, 6, 10], [0, 1, 3, 2])
    assert (lines[1]["name"], lines[1]["x"], lines[1]["y"]) == ("&lt;b&gt;one", [0, 1, 10], [0, 1, 1])
    assert lines[2]["y"][0] == 0
    assert lines[2]["y"][-1] == 1.5
    shapes: Any = view.layout["shapes"]
    assert (shapes[0]["x0"], shapes[0]["x1"]) == (10, 10)
    assert "At mu = 10 a class has 1 to 2 units, half of the classes at most 1.5." in view.alt


def test_still_pictures_have_their_size_and_are_reproducible() -> None:
    maps = coverage_by_layer(UNITS.coverage, title="a $ b", dpi=50)
    lines = units_against_mu(FULL, 10.0, title="a $ b", dpi=50)
    assert matplotlib_image.imread(io.BytesIO(maps)).shape[:2] == (240, 480)
    assert matplotlib_image.imread(io.BytesIO(lines)).shape[:2] == (150, 320)
    assert maps == coverage_by_layer(UNITS.coverage, title="a $ b", dpi=50)
    assert lines == units_against_mu(FULL, 10.0, title="a $ b", dpi=50)
