"""Odd input of question 1: one line, or an exception that the page counts and states."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from storage.stages import open_finished
from tasks.report.interpretation.content import interpretation_content
from tasks.report.interpretation.results import InterpretationResults
from tasks.steps.interpretation.results import interpretation_results
from tests.plans import cells, held_out, interpreted, learned
from tests.tasks.layout_networks import tiny_vit
from tests.tasks.odd_maps import Odd

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
NewRun = Callable[[Tree], "Run"]
SMALL = {
    "ice": {"components": 2},
    "vebi": {"mu": 2.0},
    "topics": {"topics": 3, "hidden": 8, "epochs": 1, "frozen_epochs": 0, "shapley_images": 4},
}


def odd_tree(tree: Tree, path: Path, oddity: str, *interpreters: str) -> Tree:
    """Return the tiny config on an odd network's layer."""
    torch.save(Odd(oddity).state_dict(), path / "weights.pt")
    network = {"model": "tests.tasks.odd_maps:Odd", "arguments": {"oddity": oddity}}
    network |= {"weights": str(path / "weights.pt"), "preprocessing": {"mode": "L"}}
    asked = {name: SMALL[name] for name in interpreters}
    selectors: Tree = {"random": {}, "moderate": {}, "dgpruning": {}}
    question = {"layer": "layer", "gallery": 0, "interpreters": asked, "selectors": selectors}
    return {**tree, "networks": {"small": network}, "interpretation": {**tree["interpretation"], **question}}


def results_of(run: "Run") -> InterpretationResults:
    """Return the tables of a finished run."""
    return interpretation_results(run.job.store, interpreted(run.plan))


def said(results: InterpretationResults, interpreter: str) -> dict[str, str]:
    """Return what the page says of an interpreter, by the word before it."""
    (section,) = (s for s in interpretation_content(results).sections if s.interpreter == interpreter)
    return {finding.about: finding.text for finding in section.findings}


def test_negative_maps_are_counted_and_stated(tiny_tree: Tree, new_run: NewRun, tmp_path: Path) -> None:
    run = new_run(odd_tree(tiny_tree, tmp_path, "negative", "ice", "topics")).finish()
    results, learn = results_of(run), open_finished(run.job.store, learned(run.plan)["small", 0])
    negative = int((np.asarray(learn.read("maps"), np.float64) < 0).sum())
    assert negative > 0
    full = results.by_budget[(results.by_budget["budget"] == 1) & (results.by_budget["interpreter"] == "ice")]
    assert set(full["clamped"]) == {negative}
    assert f"at 100\u00a0%: {negative:,} numbers on average" in said(results, "ice")["Negative"]
    assert "Negative" not in said(results, "topics")  # topics take negative maps as they are


def test_maps_of_zeros_leave_all_classes_out(tiny_tree: Tree, new_run: NewRun, tmp_path: Path) -> None:
    results = results_of(new_run(odd_tree(tiny_tree, tmp_path, "zero", *SMALL)).finish())
    assert set(results.by_budget["left_out"]) == {10}
    assert set(results.by_budget.loc[results.by_budget["interpreter"] == "vebi", "units"]) == {0}
    for interpreter in SMALL:
        assert "10 on average" in said(results, interpreter)["Left out"]
        assert "no distance is known" in said(results, interpreter)["Budget"]
    states = {one.state for _, listed in interpretation_content(results).observations for one in listed}
    assert states == {"cannot be said"}


def test_classes_that_are_never_predicted_are_counted(tiny_tree: Tree, new_run: NewRun, tmp_path: Path) -> None:
    run = new_run(odd_tree(tiny_tree, tmp_path, "", "vebi")).finish()
    results = results_of(run)
    predicted = open_finished(run.job.store, learned(run.plan)["small", 0]).read("logits").argmax(axis=1)
    missing = 10 - len(np.unique(predicted))
    assert missing > 0
    full = results.by_budget[results.by_budget["budget"] == 1]
    assert set(full["never_predicted"]) == {missing}
    assert "They have no units there" in said(results, "vebi")["Never predicted"]
    at_full = results.classes[results.classes["budget"] == 1]
    unseen = at_full[~at_full["label"].isin(np.unique(predicted))]
    assert (unseen["units"] == 0).all()
    assert unseen["distance_0"].isna().all()


def test_classes_of_one_sample_and_budgets_that_keep_nothing_keep_one(
    tiny_tree: Tree, new_run: NewRun, tmp_path: Path
) -> None:
    tree = odd_tree(tiny_tree, tmp_path, "", *SMALL)
    tree["data"]["digits"] = {"source": "sklearn-digits", "per_class": {"train": 1, "val": 1}}
    tree["interpretation"]["budgets"] = [1e-9, 1.0]
    results = results_of(new_run(tree).finish())
    assert set(results.by_budget["n_kept"]) == {10}
    assert results.by_budget[["null_0", "null_05", "null_1"]].isna().all(axis=None)  # no other image to exchange
    assert results.by_budget["phi_0"].notna().all()
    assert "no null distance is known" in said(results, "ice")["Budget"]
    assert set(results.selections["kept"]) == {1}


def test_a_head_without_gradients_is_one_line(tiny_tree: Tree, new_run: NewRun, tmp_path: Path) -> None:
    run = new_run(odd_tree(tiny_tree, tmp_path, "argmax", "topics"))
    with pytest.raises(Exception, match="expected a head that can be differentiated, found logits without a gradient"):
        run.finish()
    results = results_of(new_run(odd_tree(tiny_tree, tmp_path, "argmax", "ice", "vebi")).finish())
    assert set(results.by_budget["interpreter"]) == {"ice", "vebi"}  # these need no gradient


@pytest.mark.parametrize("interpreter", ["ice", "topics"])
def test_patches_of_a_transformer_are_positions(
    tiny_tree: Tree, new_run: NewRun, tmp_path: Path, interpreter: str
) -> None:
    torch.manual_seed(0)
    torch.save(tiny_vit().state_dict(), tmp_path / "vit.pt")
    network: Tree = {"model": "tests.tasks.layout_networks:tiny_vit", "weights": str(tmp_path / "vit.pt")}
    network |= {"preprocessing": {"mode": "RGB", "convert": True, "resize": [16, 16]}}
    tree = odd_tree(tiny_tree, tmp_path, "", interpreter) | {"networks": {"small": network}}
    tree["interpretation"] |= {"layer": "encoder.layers.encoder_layer_0"}
    run = new_run(tree).finish()
    stage = open_finished(run.job.store, held_out(run.plan)["small", 0])
    assert stage.layout.arrays["maps"].shape == (40, 4, 4, 24)  # of 24 channels
    values = results_of(run).by_budget
    half = values[values["budget"] == 0.5]
    assert half["phi_0"].notna().all()
    assert set(half["n_rows"]) == {4 * 16}  # of a class
    np.testing.assert_allclose(values.loc[values["budget"] == 1, "phi_0"], 0, atol=1e-6)
    assert {cell.interpreter for cell in cells(run.plan)} == {interpreter}


def test_a_layer_is_named_with_what_it_is(finished_run: "Run") -> None:
    (row,) = results_of(finished_run).networks.to_dict("records")
    assert row["layer_title"] == "last-map · the last map before pooling, 8 channels"
