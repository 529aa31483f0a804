"""The section on units: numbers next to distances, warnings, coverage, paths and pictures, from hand-made tables."""

from dataclasses import replace

import numpy as np
import pandas as pd

from tasks.report.formats import NBSP
from tasks.report.interpretation import tables
from tasks.report.interpretation.results import InterpretationResults
from tasks.report.interpretation.unit_sizes import sizes_table, unit_findings
from tasks.report.interpretation.units import unit_csv, unit_sections
from tasks.report.pages import RunFacts
from tasks.steps.interpretation.unit_results import robustness_with_units
from tests.tasks.report.interpretation.unit_tables import invented_units
from tests.tasks.report.site_pages import site_of, text_of

UNITS = invented_units()
KEYS = {"network": "small", "interpreter": ["vebi", "vebi", "ice"], "selector": "random"}


def plain(text: str) -> str:
    """Return a text with plain spaces."""
    return text.replace(NBSP, " ")


def test_units_are_next_to_the_distances_of_vebi_alone() -> None:
    table = pd.DataFrame({**KEYS, "budget": [0.1, 0.5, 0.1], "phi_0_mean": 0.3, "units_mean": [1.5, 4.0, np.nan]})
    shown = tables.distance_table(table[:2])
    place = [column.title for column in shown.columns].index("units per class")
    assert [row[place] for row in shown.rows] == ["1.5", "4"]
    assert "units per class" not in [column.title for column in tables.distance_table(table[2:]).columns]


def test_robustness_has_the_units_of_its_budgets() -> None:
    table = robustness_with_units(pd.DataFrame({**KEYS, "mean_0": 0.3}).iloc[1:], UNITS)
    np.testing.assert_array_equal(table["units_mean"], [(1 + 2 + 3.5 + 4.5) / 4, np.nan])
    shown = tables.robustness_table(table)
    assert [row[-1] for row in shown.rows] == ["2.8", "–"]
    assert sum(span for _, span in shown.groups) == len(shown.columns)


def test_findings_count_units_and_warn_where_they_are_too_few() -> None:
    found = {finding.about: plain(finding.text) for finding in unit_findings(UNITS, "small", "vebi")}
    assert found["Units per class"] == (
        "VEBI finds this many units for a class, on average: full data 4; random 1.5 at 10 %, 4 at 50 %; "
        "moderate 1.5 at 10 %, 4 at 50 % (mu = 10)."
    )
    # Of the two random draws only one has fewer than two.
    assert "on average: random at 10 % 1, moderate at 10 % 1.5. Distances of so few units" in found["Few units"]
    assert "Some of the 2 classes" in found["Never predicted"]
    assert "Number of these classes: random at 10 % 1." in found["Never predicted"]
    assert unit_findings(UNITS, "small", "ice") == unit_findings(UNITS, "small", "ice") == []
    assert unit_findings(None, "small", "vebi") == []


def test_files_count_relus_from_1_as_the_page_does() -> None:
    table = unit_csv(UNITS)["data/unit_coverage.csv"]
    assert set(table["relu"]) == {1, 2}
    assert "call" not in table
    assert unit_csv(None) == {}


def test_no_warning_where_units_are_many() -> None:
    many = UNITS.sizes.assign(few=False, never_predicted=0)
    assert [finding.about for finding in unit_findings(replace(UNITS, sizes=many), "small", "vebi")] == [
        "Units per class"
    ]


def test_sizes_are_means_over_draws() -> None:
    table = sizes_table(UNITS.sizes)
    rows = [[plain(cell) for cell in row] for row in table.rows]
    assert rows[0] == [
        "full data",
        "100 %",
        "100",
        "4",
        "–",
        "0",
        "–",
        "–",
        "–",
        "–",
        "0.50 s",
        "100",
        "1.00 s",
        "2.00 s",
    ]
    assert rows[1][:6] == ["random", "10 %", "10", "1.5", "1", "0.5"]
    assert rows[1][6:] == ["90.0 %", "40.0 %", "1", "1", "0.50 s", "5", "1.00 s", "2.00 s"]


def test_coverage_and_paths_have_their_numbers_in_tables() -> None:
    (section,), thumbnails = unit_sections(UNITS)
    assert section.coverage is not None
    assert section.coverage.table is not None
    rows = [[plain(cell) for cell in row] for row in section.coverage.table.rows]
    assert rows == [["ReLU 1 of 2", "8", "0", "1", "1"], ["ReLU 2 of 2", "16", "4", "2 (25.0 %)", "2 (25.0 %)"]]
    assert section.paths.table is not None
    # At mu = 1, 2.5, 5 and 10: the units of the breakpoint that follows; a path that ends before has its last ones.
    assert section.paths.table.rows == (("zero", "1", "3", "3", "2", "10.0"), ("<b>one", "1", "1", "1", "1", "1.00"))
    assert len({thumb.digest for thumb in thumbnails}) == 1


def test_units_that_only_coresets_find_are_described() -> None:
    (section,), _ = unit_sections(UNITS)
    unit, silent = section.pictured
    assert (unit.title, unit.about) == ("ReLU 2 of 2, channel 5", "class <b>one; the full data finds it for no class")
    assert plain(unit.found) == "random 10 % (weight 1.25)"
    assert unit.images[0].alt == "ReLU 2 of 2, channel 5 on validation image 42 of class zero, response 0.750"
    found = {f"random {n} %": float(n) for n in (1, 2, 3, 4, 5)}
    several = replace(UNITS.pictures[0].units[0], weights=found)
    (many,), _ = unit_sections(replace(UNITS, pictures=(replace(UNITS.pictures[0], units=(several,)),)))
    said = "random 1 % (weight 1.00), random 2 % (weight 2.00), random 3 % (weight 3.00) and 2 more"
    assert plain(many.pictured[0].found) == said
    assert (silent.about, silent.images) == ("class zero; the full data finds it for another class", ())
    assert section.shown == "2 of 29 are shown: sets take turns, the smallest budgets first."
    (without,), _ = unit_sections(invented_units(pictures=False))
    assert without.shown.startswith("This run has no pictures of them")
    none = replace(UNITS, pictures=(replace(UNITS.pictures[0], units=(), total=0),))
    assert unit_sections(none)[0][0].shown.startswith("Every unit that a coreset finds")
    assert unit_sections(None) == ([], [])


def test_a_run_at_full_budget_alone_has_no_map() -> None:
    full = UNITS.coverage.assign(budget=1.0)
    (section,), _ = unit_sections(replace(UNITS, coverage=full))
    assert section.coverage is None


def test_the_page_shows_the_section_once_and_only_with_units(page: InterpretationResults, facts: RunFacts) -> None:
    site = site_of(facts, replace(page, units=UNITS))
    text = text_of(site, "interpretation.html")
    assert "Units that only a coreset finds" in text
    assert "No validation image excites it." in text
    assert "class <b>one; the full data finds it for no class" in text  # escaped: shown as it is written
    digest = unit_sections(UNITS)[1][0].digest
    assert site["interpretation.html"].decode().count(f'<symbol id="t-{digest}"') == 1
    assert {"data/units.csv", "data/unit_coverage.csv"} <= set(site)
    assert "Units of all layers" not in text_of(site_of(facts, page), "interpretation.html")
