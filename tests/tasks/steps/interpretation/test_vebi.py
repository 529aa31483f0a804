"""VEBI from config to results: responses, Gram matrix, units, distances and accuracies as worked out by hand."""

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from configs.load import ConfigError
from storage.stages import open_finished
from tasks.engine.life import complete
from tasks.interpreters.mu_path import mu_path
from tasks.interpreters.vebi import mu_lasso
from tasks.metrics.shape import shape_distance
from tasks.steps.common.networks import load_network
from tasks.steps.interpretation import unit_gram as gram_module
from tasks.steps.interpretation.plan import Cell
from tasks.steps.interpretation.responses import read_images
from tasks.steps.interpretation.results import interpretation_results, method_tables
from tasks.steps.interpretation.selection import kept_positions
from tasks.steps.interpretation.unit_gram import UNIT_GRAM, read_system
from tasks.steps.interpretation.units import ClassUnits
from tests.plans import cells, interpreted
from tests.tasks.layout_networks import Planted

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
Doubles = NDArray[np.float64]
MU = 2.0


@pytest.fixture(scope="module")
def vebi_run(finished_run: "Run", new_run: Callable[[Tree], "Run"], tmp_path_factory: pytest.TempPathFactory) -> "Run":
    """Return the tiny run with VEBI on a network that is better than random, made."""
    tree = copy.deepcopy(finished_run.at(str(tmp_path_factory.mktemp("vebi") / "store")).tree)
    tree["networks"]["small"]["train"] |= {"epochs": 40, "optimizer": {"kind": "adam", "lr": 0.01}}
    tree["interpretation"] |= {"selectors": {"random": {}, "moderate": {}}, "interpreters": {"vebi": {"mu": MU}}}
    return new_run(tree).finish()


def model_and_images(run: "Run", split: str) -> tuple[nn.Module, Tensor]:
    """Return the network, and all images of a split in the order of the stores."""
    (answer,) = interpreted(run.plan)
    spec = answer.learn if split == "train" else answer.held_out
    stage = open_finished(run.job.store, spec)
    model = load_network(run.job.store, spec, torch.device("cpu"))
    return model, read_images(stage, spec, 0, stage.summary["samples"])


def relus(model: nn.Module, images: Tensor, masks: dict[int, list[int]] | None = None) -> tuple[list[Doubles], Doubles]:
    """Return the outputs of the network's ReLU modules by hooks, and its logits, with units set to 0."""
    found: list[Doubles] = []

    def hook(module: nn.Module, given: Any, output: Tensor) -> Tensor:
        changed = output.clone()
        changed[:, (masks or {}).get(len(found), [])] = 0
        found.append(changed.double().numpy())
        return changed

    handles = [m.register_forward_hook(hook) for m in model.modules() if isinstance(m, nn.ReLU)]
    with torch.no_grad():
        logits = model(images).double().numpy()
    for handle in handles:
        handle.remove()
    return found, logits


def by_hand(maps: list[Doubles]) -> Doubles:
    """Return the energy of each unit in its layer."""
    squares = [(layer**2).sum(axis=(2, 3)) for layer in maps]
    return np.concatenate([s / np.where((t := s.sum(axis=1, keepdims=True)) > 0, t, 1) for s in squares], axis=1)


def cell_of(run: "Run", budget: float, selector: str = "moderate") -> Cell:
    """Return a coreset's cell."""
    return next(one for one in cells(run.plan) if (one.budget, one.selector) == (budget, selector))


def test_responses_are_those_of_hooks(vebi_run: "Run") -> None:
    cell = cell_of(vebi_run, 0.5)
    stage = open_finished(vebi_run.job.store, cell.features.inputs["gram"].inputs["responses"])
    maps, _ = relus(*model_and_images(vebi_run, "train"))
    assert stage.summary["layers"] == [layer.shape[1] for layer in maps]
    np.testing.assert_allclose(np.asarray(stage.read("responses"), np.float64), by_hand(maps), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("panel", [1, 5 * 8 * 20, 2**30])
def test_panels_of_any_size_give_the_products(vebi_run: "Run", panel: int, monkeypatch: pytest.MonkeyPatch) -> None:
    job, spec = vebi_run.job, cell_of(vebi_run, 0.5).features.inputs["gram"]
    x = np.asarray(open_finished(job.store, spec.inputs["responses"]).read("responses"), np.float64)
    rows = np.sort(np.concatenate(kept_positions(open_finished(job.store, spec.inputs["selection"]))))
    _, logits = relus(*model_and_images(vebi_run, "train"))
    predicted = np.eye(10)[logits.argmax(axis=1)][rows]
    monkeypatch.setattr(gram_module, "PANEL_BYTES", panel)
    monkeypatch.setattr(gram_module, "CHUNK_BYTES", 8 * x.shape[1] * 7)  # seven samples at a time
    job.store.remove(spec.path)
    complete(job, UNIT_GRAM, [spec])
    stage = open_finished(job.store, spec)
    assert stage.layout.partitions == {1: x.shape[1], 2**30: 1}.get(panel, stage.layout.partitions)
    gram, moment = read_system(stage)
    np.testing.assert_allclose(gram, x[rows].T @ x[rows], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(moment, x[rows].T @ predicted, rtol=1e-9)


def test_units_are_those_of_the_lasso_and_the_whole_path_is_kept(vebi_run: "Run") -> None:
    for budget in (0.5, 1.0):
        spec = cell_of(vebi_run, budget).features
        stage, gram_stage = (open_finished(vebi_run.job.store, one) for one in (spec, spec.inputs["gram"]))
        gram, moment = read_system(gram_stage)
        weights = np.asarray(stage.read("weights"), np.float64)
        np.testing.assert_allclose(weights, mu_lasso(gram, moment, MU), atol=1e-9)
        paths = pd.read_parquet(io.BytesIO(stage.read_file("paths-000000.parquet")))
        for label in range(10):
            path = mu_path(gram, moment[:, label], until=MU)
            table = paths[paths["label"] == label]
            assert len(table) == np.count_nonzero(path.weights)
            last = table[table["mu"] == table["mu"].max()]
            np.testing.assert_array_equal(last["unit"], path.units[path.weights[-1] > 0])
            np.testing.assert_allclose(last["weight"], path.weights[-1][path.weights[-1] > 0], atol=1e-9)
        counts = (weights > 0).sum(axis=1)
        assert stage.summary["units_mean"] == counts.mean()
        assert stage.summary["few_units"] == (counts.mean() < 2)
        assert sum(stage.summary["layers"]) == weights.shape[1]


def test_errors_of_the_fit_are_residuals(vebi_run: "Run") -> None:
    spec = cell_of(vebi_run, 0.5).features
    stage, responses = (open_finished(vebi_run.job.store, s) for s in (spec, spec.inputs["gram"].inputs["responses"]))
    kept = kept_positions(open_finished(vebi_run.job.store, spec.inputs["gram"].inputs["selection"]))
    rows = np.sort(np.concatenate(kept))
    x = np.asarray(responses.read("responses"), np.float64)[rows]
    _, logits = relus(*model_and_images(vebi_run, "train"))
    predicted = np.eye(10)[logits.argmax(axis=1)][rows]
    for label, found in stage.summary["classes"].items():
        target, weights = predicted[:, int(label)], np.asarray(stage.read("weights"), np.float64)[int(label)]
        error = np.linalg.norm(target - x @ weights) / np.linalg.norm(target) if target.any() else 0.0
        np.testing.assert_allclose(found["relative_error"], error, rtol=1e-6, atol=1e-7)
        assert (found["kept"], found["predicted"]) == (6, target.sum())
    assert stage.summary["never_predicted"] == (predicted.sum(axis=0) == 0).sum()


@pytest.mark.parametrize("selector", ["random", "moderate"])
def test_the_evaluation_is_that_of_hooks_and_masks(vebi_run: "Run", selector: str) -> None:
    cell, full = cell_of(vebi_run, 0.5, selector), cell_of(vebi_run, 1.0)
    stage = open_finished(vebi_run.job.store, cell.evaluation)
    (answer,) = interpreted(vebi_run.plan)
    labels = np.asarray(open_finished(vebi_run.job.store, answer.held_out).read("label"))
    model, images = model_and_images(vebi_run, "val")
    calls = np.repeat(np.arange(3), [layer.shape[1] for layer in relus(model, images)[0]])
    sides = [np.asarray(open_finished(vebi_run.job.store, one.features).read("weights")) for one in (full, cell)]
    for label in range(10):
        rows = dict(zip(stage.summary["measures"], np.asarray(stage.read("values"))[label].tolist(), strict=True))
        maps, logits = relus(model, images[labels == label])
        assert rows["accuracy_plain"] == (logits.argmax(axis=1) == label).mean()
        reference, mine = (side[label] for side in sides)
        masks = {call: np.flatnonzero(mine[calls == call]).tolist() for call in range(calls.max() + 1)}
        _, without = relus(model, images[labels == label], masks)
        assert rows["accuracy_without"] == (without.argmax(axis=1) == label).mean()
        assert rows["units"] == np.count_nonzero(mine)
        assert rows["units_shared"] == np.count_nonzero((mine > 0) & (reference > 0))
        distances, skipped = [], 0
        for call in range(calls.max() + 1):
            layer = [weights[calls == call] for weights in (reference, mine)]
            ranked = [np.argsort(-w, kind="stable")[: np.count_nonzero(w)] for w in layer]
            size = min(map(len, ranked))
            skipped += size == 0 and max(map(len, ranked)) > 0
            covered = np.asarray(stage.read("coverage"))[label, call]
            np.testing.assert_array_equal(covered, [len(ranked[1]), len(ranked[0]), len({*ranked[0]} & {*ranked[1]})])
            if size:
                flat = [np.moveaxis(maps[call][:, r[:size]], 1, -1).reshape(-1, size) for r in ranked]
                distances.append(shape_distance(flat[0], flat[1]))
        assert (rows["layers_compared"], rows["layers_skipped"]) == (len(distances), skipped)
        if distances:
            np.testing.assert_allclose(rows["distance_0"], np.mean(distances), atol=1e-3)
            assert rows["self_0"] < 1e-6
        assert np.isnan(rows["accuracy"])  # units do not rebuild maps


def test_zeroing_a_class_lowers_its_accuracy(vebi_run: "Run") -> None:
    table = interpretation_results(vebi_run.job.store, interpreted(vebi_run.plan)).classes
    full = table[table["budget"] == 1.0]
    assert full["accuracy_plain"].mean() > 0.4
    assert full["accuracy_without"].mean() < full["accuracy_plain"].mean()
    assert (full["distance_0"].dropna() < 1e-6).all()


def test_tables_of_the_report_have_units_and_coverage(vebi_run: "Run") -> None:
    found = method_tables(vebi_run.job.store, cells(vebi_run.plan))
    assert set(found) == {"units", "coverage"}
    cell = cell_of(vebi_run, 0.5)
    stage = open_finished(vebi_run.job.store, cell.features)
    weights, layers = np.asarray(stage.read("weights"), np.float64), stage.summary["layers"]
    for name, table in found.items():
        mine = table[(table["selector"] == "moderate") & (table["budget"] == 0.5)]
        assert set(mine["network"]) == {"small"}
        if name == "units":
            again = np.zeros_like(weights)
            starts = np.concatenate([[0], np.cumsum(layers)])
            again[mine["label"], starts[mine["call"]] + mine["channel"]] = mine["weight"]
            np.testing.assert_array_equal(again, weights)
            assert (mine["channel"] < np.array(layers)[mine["call"]]).all()
        else:
            assert len(mine) == 10 * len(layers)
            assert mine["units"].sum() == np.count_nonzero(weights)


def test_units_of_a_class_by_hand() -> None:
    units = ClassUnits(np.array([0.0, 0.2, 0.5, 0.0, 0.1, 0.1]), np.array([0, 0, 0, 1, 1, 1]))
    assert units.by_call() == {0: [2, 1], 1: [1, 2]}
    maps = np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3)
    found = units.express(maps)
    np.testing.assert_array_equal(found.reconstruction, maps * [0, 1, 1])
    np.testing.assert_array_equal(found.columns, maps[0, :, :, 1:].reshape(4, 2))
    assert units.heat_maps(maps, (2, 2)).max() == 1
    other = np.ones((1, 2, 2, 5), np.float32)  # the layer is not the last ReLU
    assert (units.express(other).reconstruction == 0).all()
    assert (units.heat_maps(other, (3, 3)) == 0).all()


def test_units_of_a_layer_with_channels_last_are_its_last_axis(
    tiny_tree: Tree, new_run: Callable[[Tree], "Run"], tmp_path: Path
) -> None:
    tiny_tree["interpretation"] |= {"layer": "layer", "interpreters": {"vebi": {"mu": MU}}}
    found = []
    torch.save(Planted(channels=5).state_dict(), tmp_path / "weights.pt")
    for layout in ("channels-first", "channels-last", "tokens"):
        tiny_tree["networks"]["small"] = {
            "model": "tests.tasks.layout_networks:Planted",
            "arguments": {"layout": layout, "channels": 5},
            "weights": str(tmp_path / "weights.pt"),
            "preprocessing": {"mode": "L"},
        }
        tiny_tree["interpretation"]["gallery"] = 0
        run = new_run(tiny_tree).finish()
        cell = next(cell for cell in cells(run.plan) if cell.budget == 0.5)
        stage = open_finished(run.job.store, cell.features)
        assert stage.summary["layers"] == [5]
        evaluation = open_finished(run.job.store, cell.evaluation)
        measures = pd.DataFrame(evaluation.read("values"), columns=evaluation.summary["measures"])
        found.append((np.asarray(stage.read("weights"), np.float64), measures))
    for weights, measures in found[1:]:  # the same numbers in another order of axes
        np.testing.assert_allclose(weights, found[0][0], atol=1e-4)
        pd.testing.assert_frame_equal(measures, found[0][1], atol=1e-4)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"nu": 1}, "interpretation.interpreters.vebi.nu: unknown parameter; known: mu, response"),
        ({"mu": 0}, "interpretation.interpreters.vebi: mu: expected a finite number above 0, found 0"),
        ({"response": "max"}, "interpretation.interpreters.vebi: response: expected energy, l2, mean, found 'max'"),
    ],
)
def test_parameters_are_checked(
    tiny_tree: Tree, new_run: Callable[[Tree], "Run"], parameters: Tree, message: str
) -> None:
    tiny_tree["interpretation"]["interpreters"] = {"vebi": parameters}
    with pytest.raises(ConfigError, match=message):
        new_run(tiny_tree)
