"""Three interpreters, two networks and transfer, from config to the tables of the report and to its page."""

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from storage.notes import read_markers
from storage.specs import StageSpec
from storage.stages import open_finished
from tasks.report.interpretation.content import interpretation_content
from tasks.report.interpretation.results import InterpretationResults
from tasks.steps.interpretation.costs import stages_of
from tasks.steps.interpretation.plan import Cell
from tasks.steps.interpretation.results import coreset_table, interpretation_results
from tests.plans import cells, interpreted

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
TOPICS = {"topics": 2, "hidden": 8, "epochs": 1, "frozen_epochs": 1, "shapley_images": 8}


@pytest.fixture(scope="module")
def exchange(finished_run: "Run", new_run: Callable[[Tree], "Run"], tmp_path_factory: pytest.TempPathFactory) -> "Run":
    """Return a run of two networks that exchange coresets, with all interpreters and selectors, made."""
    tree = copy.deepcopy(finished_run.at(str(tmp_path_factory.mktemp("exchange") / "store")).tree)
    tree["networks"]["wider"] = copy.deepcopy(tree["networks"]["small"]) | {"arguments": {"width": 5}}
    tree["interpretation"] |= {
        "networks": ["small", "wider"],
        "coreset_from": ["small", "wider"],
        "selectors": {"random": {}, "moderate": {}, "dgpruning": {}},
        "budgets": [0.5, 0.95, 1.0],
        "interpreters": {"ice": {"components": 2}, "vebi": {"mu": 2.0}, "topics": TOPICS},
    }
    return new_run(tree).finish()


@pytest.fixture(scope="module")
def results(exchange: "Run") -> InterpretationResults:
    """Return the tables of the run."""
    return interpretation_results(exchange.job.store, interpreted(exchange.plan))


def spent(run: "Run", spec: StageSpec) -> tuple[float, float]:
    """Return seconds and peak memory of a stage, from its partition records."""
    partitions = open_finished(run.job.store, spec).layout.partitions
    records = read_markers(run.job.store, [(spec.path, number) for number in range(partitions)]).values()
    numbers = [record["numbers"] for record in records if isinstance(record, dict)]
    assert len(numbers) == partitions
    return sum(one["seconds"] for one in numbers), max(one["peak_mb"] for one in numbers)


def cell_of(run: "Run", **wanted: object) -> Cell:
    """Return the only cell with these values."""
    (found,) = [c for c in cells(run.plan) if all(getattr(c, key) == value for key, value in wanted.items())]
    return found


def row_of(table: pd.DataFrame, **wanted: object) -> "pd.Series[Any]":  # Any: columns of several types
    """Return the only row with these values."""
    for key, value in wanted.items():
        table = table[table[key] == value]
    assert len(table) == 1
    return table.iloc[0]


@pytest.mark.parametrize(
    ("interpreter", "stages"),
    [("ice", {"features"}), ("vebi", {"unit-gram", "units"}), ("topics", {"topics"})],
)
def test_costs_are_those_of_the_stages_that_depend_on_the_coreset(
    exchange: "Run", results: InterpretationResults, interpreter: str, stages: set[str]
) -> None:
    at = {"network": "small", "seed": 0, "interpreter": interpreter, "selector": "moderate", "repeat": 0, "budget": 0.5}
    cell, row = cell_of(exchange, **at), row_of(results.by_budget, **at)
    _, fitted, compared, scored = stages_of(cell)
    assert {spec.stage for spec in fitted} >= stages
    assert {spec.stage for spec in fitted} & {"activations", "unit-responses", "selection", "manifest"} == set()
    assert compared == [cell.evaluation]
    assert scored == ([cell.scores] if interpreter == "topics" else [])
    parts = {"selection": [cell.selection], "features": fitted, "evaluation": compared, "scores": scored}
    assert np.isnan(row["scores_seconds"]) == (interpreter != "topics")
    for part, specs in ((part, specs) for part, specs in parts.items() if specs):
        seconds, memory = zip(*(spent(exchange, spec) for spec in specs), strict=True)
        np.testing.assert_allclose(row[f"{part}_seconds"], sum(seconds))
        np.testing.assert_allclose(row[f"{part}_peak_mb"], max(memory))
        assert row[f"{part}_seconds"] > 0


def test_units_are_in_the_table_of_budgets_next_to_their_distance(results: InterpretationResults) -> None:
    at = {"network": "wider", "selector": "dgpruning", "budget": 0.5}
    row = row_of(results.by_budget, interpreter="vebi", **at)
    classes = results.classes
    part = classes[(classes["interpreter"] == "vebi") & (classes[list(at)] == pd.Series(at)).all(axis=1)]
    assert len(part) == 10
    for name in ("units", "accuracy_without", "layers_skipped"):
        np.testing.assert_allclose(row[name], part[name].mean())
        assert np.isnan(row_of(results.by_budget, interpreter="ice", **at)[name])
    assert np.isnan(row["accuracy"])  # units rebuild no maps


def test_every_interpreter_has_the_95_percent_reference(results: InterpretationResults) -> None:
    near = results.over_repeats[results.over_repeats["budget"] == 0.95]
    assert set(near["interpreter"]) == {"ice", "vebi", "topics"}
    assert set(near["selector"]) >= {"random", "moderate", "dgpruning"}


def test_transferred_coresets_differ_and_random_has_none(results: InterpretationResults) -> None:
    table = results.transfer
    assert set(zip(table["network"], table["coreset_from"], strict=True)) == {("small", "wider"), ("wider", "small")}
    assert set(table["budget"]) == {0.5, 0.95}
    assert set(table["selector"]) == {"moderate", "dgpruning"}
    assert (table["phi_0_difference"].abs() > 1e-6).any()
    at = {"network": "small", "interpreter": "ice", "budget": 0.5}
    row = row_of(table, selector="moderate", **at)
    own, sent = (
        row_of(results.by_budget, selector=selector, **at)["phi_0"] for selector in ("moderate", "moderate from wider")
    )
    np.testing.assert_allclose((row["phi_0_own"], row["phi_0_transferred"]), (own, sent))


def test_exported_coresets_name_the_network_that_selected(exchange: "Run") -> None:
    table = coreset_table(exchange.job.store, cells(exchange.plan))
    at = {"network": "wider", "repeat": 0, "budget": 0.5, "label": 3}
    part = table[(table[list(at)] == pd.Series(at)).all(axis=1)]
    ids = {selector: set(rows["id"]) for selector, rows in part.groupby("selector")}
    assert "random from small" not in ids
    assert set(part.loc[part["selector"] == "moderate from small", "coreset_from"]) == {"small"}
    mine = table[(table[list(at)] == pd.Series(at | {"network": "small"})).all(axis=1)]
    assert ids["random"] == set(mine.loc[mine["selector"] == "random", "id"])  # the same for all networks
    assert ids["moderate from small"] == set(mine.loc[mine["selector"] == "moderate", "id"])


def test_dgpruning_logs_its_distance_and_topics_their_near_duplicates(results: InterpretationResults) -> None:
    logged = results.selections
    dg = logged["selector"].str.startswith("dgpruning") & (logged["budget"] < 1)
    assert (logged.loc[dg, "median_distance"] > 0).all()
    assert (logged.loc[dg, "gamma_f"] == 1.0).all()
    assert logged.loc[~dg, "median_distance"].isna().all()
    assert {"completeness", "duplicates", "shapley"} <= set(results.methods["topics"])


def test_the_page_has_every_table(results: InterpretationResults) -> None:
    content = interpretation_content(results)
    assert [name for name, _ in content.budgets] == ["small", "wider"]
    table = content.budgets[0][1]
    heads = dict(table.groups)
    assert heads["α = 0"] == 2
    assert heads["features"] == 2
    assert len(table.rows) == 3 * (3 * 3 + 2 * 2)  # own selectors at three budgets, two transferred ones below 100 %
    assert [name for name, _ in content.observations] == ["small", "wider"]
    assert content.transfer is not None
    assert len(content.transfer.findings) == 2
    assert content.topics is not None
    assert content.sections[0].title == "small, ice"
    lines = {part["name"] for part in content.sections[0].figures[0].views[0].data}
    assert "moderate" in lines
    assert "moderate from wider" not in lines  # a section shows the network's own coresets
    assert "95 % of the data" in lines
    assert all("from" not in finding.text.split(":")[0] for finding in content.neighbours)
