"""Question 4 of graph networks, whole: ragged contributions, every kind of archive, checks, resuming and the page."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from storage.stages import find_finished, open_finished
from tasks.capture import capture_inputs
from tasks.cluster.parallel import PartitionError
from tasks.modules.rows import Rows
from tasks.steps.common.networks import load_network
from tasks.steps.common.replays import open_archive
from tasks.steps.report import write_report
from tasks.steps.tracing.queries import query_inputs
from tasks.steps.tracing.results import tracing_results
from tasks.training import loop
from tests.graph_sets import graph_arrays, write_graphs
from tests.plans import traces

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
NewRun = Callable[[Tree], "Run"]
KINDS = ("dense", "hybrid", "replay")


def graph_tree(folder: Path, kind: str = "dense", **asked: object) -> Tree:
    """Return a config with a network of two layers and its shallow twin."""
    folder.mkdir(parents=True, exist_ok=True)
    path = write_graphs(folder / "graphs.npz", graph_arrays(40))
    train = {
        "data": "graphs",
        "epochs": 3,
        "optimizer": {"kind": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.001},
        "batches": {"kind": "single-class", "size": 4, "ghosts": 5},
        "checkpoint_every": 9,
        "record": {"kind": kind},
    }
    network = {"model": "graph-network", "train": train}
    sizes = {"nodes": 3, "classes": 2, "width": 4, "ends": True}
    return {
        "name": "graphs",
        "store": str(folder / "lore"),
        "seeds": [0],
        "cluster": {"kind": "serial"},
        "data": {"graphs": {"source": "graph-npz", "paths": {"all": str(path)}, "split": {"train": 0.8, "val": 0.2}}},
        "networks": {
            "deep": {**network, "arguments": {**sizes, "layers": 2}},
            "shallow": {**copy.deepcopy(network), "arguments": {**sizes, "layers": 1}},
        },
        "tracing": {"networks": ["deep", "shallow"], "queries": {"split": "val", "count": 6}, **asked},
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, "Run"]:
    from tests.conftest import Run

    root, found = tmp_path_factory.mktemp("graph-runs"), {}
    for kind in KINDS:
        found[kind] = Run.of(graph_tree(root / kind, kind, units=["layers.0.first:1"], suspects=2))
        found[kind].finish()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_gammas_are_sums_over_the_rows_of_each_graph(runs: dict[str, "Run"], kind: str) -> None:
    run = runs[kind]
    for trace in traces(run.plan):
        store = run.job.store
        stage, source = open_finished(store, trace.contributions), open_archive(store, trace.training)
        truth = open_archive(runs["dense"].job.store, _same(runs["dense"], trace.network).training)
        model = load_network(store, trace.queries, torch.device("cpu"))
        inputs = capture_inputs(model, source.layers, query_inputs(store, trace.queries, torch.device("cpu")))
        for layer in source.layers:
            assert torch.equal(source.final(layer), truth.final(layer))
            gamma, norm = stage.read(f"gamma.{layer}"), stage.read(f"norm.{layer}")
            start, square = stage.read(f"init.{layer}"), stage.read(f"preactivation.{layer}") ** 2
            updates = torch.cat([b.dense() for s in truth.segments() for b in truth.blocks(s, [layer])]).double()
            given = inputs[layer]
            for q in range(6):
                rows = given[q : q + 1].values if isinstance(given, Rows) else given[q : q + 1]
                z = rows.double() @ source.final(layer).double().T
                for step in range(0, len(updates), 5):
                    moved = rows.double() @ updates[step].T
                    scale = float(z.norm() * moved.norm())
                    assert abs(float((z * moved).sum()) - gamma[step, q]) <= 2e-3 * scale + 1e-9
                    np.testing.assert_allclose(norm[step, q], moved.norm(), rtol=2e-2, atol=1e-6)
                assert abs(float(gamma[:, q].astype(np.float64).sum() + start[q] - square[q])) <= 1e-3 * square[q]


def _same(run: "Run", network: str) -> Any:  # Any: a trace
    return next(trace for trace in traces(run.plan) if trace.network == network)


def test_a_unit_is_its_row_of_every_node(runs: dict[str, "Run"]) -> None:
    run = runs["dense"]
    trace = _same(run, "deep")
    stage, source = open_finished(run.job.store, trace.contributions), open_archive(run.job.store, trace.training)
    model = load_network(run.job.store, trace.queries, torch.device("cpu"))
    inputs = capture_inputs(model, ["layers.0.first"], query_inputs(run.job.store, trace.queries, torch.device("cpu")))[
        "layers.0.first"
    ]
    (block, *_) = source.blocks(source.segments()[0], ["layers.0.first"])
    weight, update = source.final("layers.0.first")[1].double(), block.dense()[2, 1].double()
    found = stage.read("gamma.layers.0.first:1")
    for q in range(6):
        rows = inputs[q : q + 1].values if isinstance(inputs, Rows) else inputs[q : q + 1]
        expected = float(((rows.double() @ weight) * (rows.double() @ update)).sum())
        np.testing.assert_allclose(found[2, q], expected, rtol=1e-4, atol=1e-8)


def test_all_kinds_of_archive_name_the_same_examples_by_batch(runs: dict[str, "Run"]) -> None:
    tables = {kind: tracing_results(run.job.store, traces(run.plan), "show") for kind, run in runs.items()}
    for kind in KINDS[1:]:
        one, other = tables["dense"].layers, tables[kind].layers
        for column in ("init_share", "examples_share"):
            np.testing.assert_allclose(one[column], other[column], atol=2e-3)
        assert (other["residual_max"] < 1e-3).all()
    split = tables["replay"].layers.set_index(["network", "layer"])["split"]
    assert (split == "example").all()  # each graph by its own gradient, ghosts apart
    shares = tables["replay"].layers
    np.testing.assert_allclose(shares["batch_share"] + shares["ghosts_share"], shares["examples_share"], atol=1e-5)
    assert (shares["ghosts_share"].abs() > 0).any()


def test_images_of_graphs_and_the_twin_are_on_the_page(runs: dict[str, "Run"]) -> None:
    run = runs["dense"]
    results = tracing_results(run.job.store, traces(run.plan), "show")
    picture = results.queries[0].image
    assert picture is not None
    assert picture.shape == (96, 96, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 3  # white, lines and more than one label
    assert results.images
    write_report(run.job.store, run.plan.made(), created="today", reused=frozenset())
    text = (Path(run.config.store) / "reports" / "graphs" / "tracing.html").read_text()
    assert "Its shallow twin shallow has 4 traced layers in place of 7. Its accuracy is" in text
    assert "data:image/png" in text


def test_a_killed_training_goes_on_to_the_same_bytes(
    runs: dict[str, "Run"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_run: NewRun
) -> None:
    run = new_run(graph_tree(tmp_path, "replay"))
    original, calls = loop.Trainer._step, 0

    def dying(self: loop.Trainer, *arguments: Any) -> float:  # Any: passed on
        nonlocal calls
        calls += 1
        if calls == 30:  # in the second segment: the first has a preflight
            raise RuntimeError("killed")
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "_step", dying)
        with pytest.raises(PartitionError, match="killed"):
            run.finish()
    assert any(find_finished(run.job.store, spec.path) is None for spec in run.plan.stages)
    run.finish()
    for trace in traces(run.plan):
        here = open_archive(run.job.store, trace.training)
        there = open_archive(runs["dense"].job.store, _same(runs["dense"], trace.network).training)
        for layer in here.layers:
            assert torch.equal(here.final(layer), there.final(layer))
            moved = [torch.cat([b.dense() for s in a.segments() for b in a.blocks(s, [layer])]) for a in (here, there)]
            assert torch.equal(*moved)


def test_counterfactual_index_and_aggregate_take_graphs(tmp_path: Path, new_run: NewRun) -> None:
    tree = graph_tree(
        tmp_path,
        counterfactual={"retrainings": 2, "left_out": 0.1},
        scores=["gamma", "logit", "tracin"],
        derive={"index": {"references": 6, "held_out": 2, "coefficients": 4}, "aggregate": {}},
    )
    tree["networks"].pop("shallow")
    tree["tracing"]["networks"] = ["deep"]
    run = new_run(tree)
    run.finish()
    results = tracing_results(run.job.store, traces(run.plan), "none")
    assert np.isfinite(results.growth["growth"].astype(float)).all()
    assert {"counterfactual", "tracin"} <= set(results.evaluation["score"])
