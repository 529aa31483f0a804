"""The costs within layerlore: their tables at small sizes, and a run's parts from the lines of a run."""

import pytest

from benchmarks.peers.costs import heads, measure, parts_of, selections
from benchmarks.peers.measuring import Measured
from benchmarks.peers.sections import Section


def test_small_tables_have_a_row_for_each_case() -> None:
    section = measure(quick=True, rounds=1)
    assert isinstance(section, Section)
    heads, selections = section.tables
    assert [row[0] for row in heads.rows] == [
        f"{what}, batch {batch}" for batch in (1, 32, 256) for what in ("forward", "forward and backward")
    ]
    assert [row[0] for row in selections.rows] == ["random", "moderate"]


def test_ratios_are_those_of_the_measured_times(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"dense": 0.004, "decomposed": 0.001, "1": 0.002, "4": 0.009}
    monkeypatch.setattr(
        "benchmarks.peers.costs.in_milliseconds",
        lambda sides, rounds: {name: Measured(seconds[name], 1, None) for name in sides},
    )
    section = Section()
    assert {tuple(row[1:]) for row in heads(section, 1, 16, 4, 2).rows} == {("1.00 ms", "4.00 ms", "0.25")}
    assert "Head, batch 1, forward: a dense layer takes 4.00 times the CPU time of layerlore." in section.ours_better
    assert {tuple(row[1:]) for row in selections(1, 10).rows} == {("2.00 ms", "9.00 ms", "4.50")}


def test_parts_of_a_run_add_up() -> None:
    lines = [
        (1.0, "3 of 3 stages to make, in lore"),
        (8.0, "manifest digits [eeb5faa1]: 1 of 1 partitions to do"),
        (8.5, "manifest digits [eeb5faa1]: done in 0.5 s"),
        (9.0, "features (1,025): 1,025 of 2,000 partitions to do"),
        (11.0, "features (1,025): 50 of 1,025"),
        (12.0, "features (1,025): done in 2.5 s"),
        (17.0, "report: lore/reports/digits/index.html"),
        (17.25, ""),
    ]
    parts = parts_of(lines, 30.0)
    expected = {"until the first stage": 8, "stages": 3, "between stages": 1, "after it": 0.25, "all": 17.25}
    assert {part: parts[part] for part in expected} == pytest.approx(expected)
    assert parts["the report, and the end of the workers"] == 5
    assert sum(list(parts.values())[:-2]) == pytest.approx(parts["all"])
    assert parts["CPU time of all processes"] == 30
