"""The stages derived from an archive: the aggregate against a loop, the index against exact gammas, from any kind."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from storage.stages import FinishedStage, open_finished
from tasks.steps.common.replays import open_archive
from tasks.steps.tracing.aggregate import class_gammas, class_groups
from tasks.steps.tracing.index_basis import held_out, layers_of
from tasks.steps.tracing.ondemand import Recorded, Request
from tasks.steps.tracing.preview import preview_now
from tests.plans import traces
from tests.tasks.steps.tracing.conftest import Doubles, Plain, images, train_plainly

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
NewRun = Callable[[Tree], "Run"]
BATCHES: dict[str, Tree] = {
    "mixed": {"kind": "shuffled", "size": 3},
    "single": {"kind": "single-class", "size": 2, "ghosts": 0},
}


def derived(tree: Tree, store: Path, **record: object) -> Tree:
    """Return a config with an index and an aggregate."""
    found = {**copy.deepcopy(tree), "store": str(store)}
    found["networks"]["net"]["train"] |= {"record": record, "checkpoint_every": 5}
    index = {"references": 8, "held_out": 2, "coefficients": 8}
    found["tracing"] |= {"derive": {"aggregate": {"groups": 3}, "index": index}, "bias": False}
    return found


def read(stage: FinishedStage, name: str) -> Doubles:
    """Return an array whole, in float64."""
    return stage.read(name).astype(np.float64)


def by_hand(plain: Plain, layer: str, groups: list[list[int]]) -> tuple[Doubles, Doubles]:
    """Return the sums (epoch, group, ...) of weight and bias, in a loop over steps and members."""
    label_of = dict(zip(plain.rows["id"], plain.rows["label_given"], strict=True))
    group_of = {label: number for number, group in enumerate(groups) for label in group}
    epochs, found = plain.steps[-1].epoch + 1, []
    for part in ("weight", "bias"):
        values = plain.weights[f"{layer}.{part}"].numpy()
        sums = np.zeros((epochs, len(groups), *values.shape[1:]))
        for t, step in enumerate(plain.steps):
            for example in step.members.tolist():
                sums[step.epoch, group_of[label_of[example]]] += (values[t + 1] - values[t]) / len(step.members)
        found.append(sums)
    return found[0], found[1]


@pytest.mark.parametrize("batches", BATCHES)
@pytest.mark.parametrize("kind", ["dense", "replay", "hybrid"])
def test_the_aggregate_is_a_loops(mlp: Tree, new_run: NewRun, tmp_path: Path, kind: str, batches: str) -> None:
    tree = derived(mlp, tmp_path / "store", kind=kind)
    tree["networks"]["net"]["train"]["batches"] = BATCHES[batches]
    run = new_run(tree).finish()
    trace = traces(run.plan)[0]
    assert trace.aggregate is not None
    stage, plain = open_finished(run.job.store, trace.aggregate), train_plainly(run, trace.training)
    groups = stage.summary["groups"]
    assert groups == [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]
    for layer in stage.summary["layers"]:
        weights, biases = by_hand(plain, layer, groups)
        close = {"rtol": 2e-3, "atol": 1e-4 * np.abs(weights).max()} if kind == "hybrid" else {"atol": 1e-12}
        np.testing.assert_allclose(read(stage, f"sum.{layer}")[:, :-1], weights, **close)
        np.testing.assert_allclose(read(stage, f"bias.{layer}")[:, :-1], biases, atol=1e-12)
        assert not read(stage, f"sum.{layer}")[:, -1].any()
        source = open_archive(run.job.store, trace.training)
        whole = source.final(layer).double() - source.initial(layer).double()
        total = read(stage, f"sum.{layer}").sum(axis=(0, 1))
        np.testing.assert_allclose(
            total, whole.numpy(), atol=1e-3 * float(whole.abs().max()) if kind == "hybrid" else 1e-12
        )


def test_steps_without_a_record_are_apart(mlp: Tree, new_run: NewRun, tmp_path: Path) -> None:
    run = new_run(derived(mlp, tmp_path / "store", kind="dense", steps=[[0, 4], [9, 21]])).finish()
    trace = traces(run.plan)[0]
    assert trace.aggregate is not None
    stage, plain = open_finished(run.job.store, trace.aggregate), train_plainly(run, trace.training)
    weights = plain.weights["1.weight" if "1.weight" in plain.weights else f"{plain.layers[0]}.weight"].numpy()
    layer = "1" if "1.weight" in plain.weights else plain.layers[0]
    gaps = [t for t in range(len(plain.steps)) if not (t < 4 or 9 <= t < 21)]
    lost = sum(weights[t + 1] - weights[t] for t in gaps)
    np.testing.assert_allclose(read(stage, f"sum.{layer}")[:, -1].sum(axis=0), lost, atol=1e-12)


def test_groups_share_the_classes_evenly() -> None:
    assert class_groups([0, 1, 2], 10) == [[0], [1], [2]]
    assert class_groups(list(range(7)), 3) == [[0, 1, 2], [3, 4], [5, 6]]
    assert held_out(20, 5).sum() == 5
    assert held_out(4, 32).sum() == 1


def test_class_shares_from_the_aggregate(mlp: Tree, new_run: NewRun, tmp_path: Path) -> None:
    """Of a new query they are the sums of exact gammas of its steps."""
    run = new_run(derived(mlp, tmp_path / "store", kind="dense")).finish()
    trace = traces(run.plan)[0]
    assert trace.index is not None
    assert trace.aggregate is not None
    store, plain = run.job.store, train_plainly(run, trace.training)
    ids = plain.ids[[3, 11]]
    layers = layers_of(trace.index, open_archive(store, trace.training), store, images(ids))
    stage = open_finished(store, trace.aggregate)
    label_of = dict(zip(plain.rows["id"], plain.rows["label_given"], strict=True))
    for layer in layers:
        name = layer.target.name
        exact, expected = plain.project(name, ids).gamma, np.zeros((2, 3, 2))
        for t, step in enumerate(plain.steps):
            group = next(i for i, g in enumerate(stage.summary["groups"]) if label_of[step.members[0]] in g)
            expected[step.epoch, group] += exact[t]
        np.testing.assert_allclose(class_gammas(stage, name, layer.directions)[:, :-1], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["dense", "replay"])
def test_the_index_of_its_references_is_exact(mlp: Tree, new_run: NewRun, tmp_path: Path, kind: str) -> None:
    run = new_run(derived(mlp, tmp_path / "store", kind=kind)).finish()
    trace = traces(run.plan)[0]
    assert trace.index is not None
    store, spec = run.job.store, trace.index
    stage, basis = open_finished(store, spec), open_finished(store, spec.inputs["basis"])
    queries, plain = open_finished(store, spec.inputs["queries"]), train_plainly(run, trace.training)
    held = held_out(10, 2)
    assert [len(read(basis, "input")), held.sum()] == [8, 2]
    ids = queries.read("sample_id").astype(np.int64)
    layers = layers_of(spec, open_archive(store, trace.training), store, torch.from_numpy(read(basis, "input")).float())
    for layer in layers:
        name = layer.target.name
        weights, steps = read(basis, f"basis.{name}"), read(stage, f"coefficient.{name}")
        place = layer.directions.products(layer.directions) @ weights  # with 8 axes, all 8 references are inside
        exact = plain.project(name, ids[~held]).gamma
        np.testing.assert_allclose(steps @ place.T, exact, rtol=2e-3, atol=2e-3 * np.abs(exact).max())
        moves = plain.weights[f"{name}.weight"].diff(dim=0).flatten(1).norm(dim=1).numpy()
        np.testing.assert_allclose(read(stage, f"size.{name}"), moves, rtol=1e-5)
        other = plain.project(name, ids[held]).gamma
        made, square = steps @ read(basis, f"place.{name}").T, read(basis, f"square.{name}")
        scale = moves[:, None] * np.sqrt(square)
        sums = read(stage, f"errors.{name}").sum(axis=0)
        np.testing.assert_allclose(sums[:, 0], (((made - other) / scale) ** 2).sum(axis=0), rtol=1e-2, atol=1e-9)
        np.testing.assert_allclose(sums[:, 1], ((other / scale) ** 2).sum(axis=0), rtol=1e-3)


def test_a_killed_pass_goes_on(mlp: Tree, new_run: NewRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.steps.tracing import index

    tree = derived(mlp, tmp_path / "whole", kind="dense")
    whole = new_run(tree).finish()
    broken = new_run({**tree, "store": str(tmp_path / "broken")})
    original, calls = index._updates, 0

    def fails(*given: Any) -> Any:  # Any: passed on
        nonlocal calls
        calls += 1
        if calls == 5:
            raise RuntimeError("killed")
        return original(*given)

    monkeypatch.setattr(index, "_updates", fails)
    with pytest.raises(Exception, match="killed"):
        broken.finish()
    broken.finish()
    for role in ("index", "aggregate"):
        one, other = (open_finished(run.job.store, getattr(traces(run.plan)[0], role)) for run in (whole, broken))
        for name in one.layout.arrays:
            np.testing.assert_array_equal(read(one, name), read(other, name))


@pytest.mark.parametrize("groups", [3, 7, 10])
def test_a_preview_weighs_groups_of_any_size(mlp: Tree, new_run: NewRun, tmp_path: Path, groups: int) -> None:
    tree = derived(mlp, tmp_path / "store", kind="dense")
    tree["tracing"]["derive"]["aggregate"] = {"groups": groups}
    tree["networks"]["net"]["train"]["optimizer"] = {"kind": "sgd", "lr": 0.05}  # no decay: sums say it all
    run = new_run(tree).finish()
    trace = traces(run.plan)[0]
    assert trace.index is not None
    assert trace.aggregate is not None
    assert run.config.tracing is not None
    training = Recorded(trace.training, run.config.networks[trace.network], trace.training.inputs["data"])
    sample = int(open_finished(run.job.store, trace.index.inputs["queries"]).read("sample_id")[0])
    asked, request = run.config.tracing, Request(sample=sample)
    by_class, by_group = (
        preview_now(run.job.store, training, asked, request, (trace.index, aggregate)).classes
        for aggregate in (None, trace.aggregate)
    )
    for layer, rows in by_group.groupby("layer"):
        single = by_class[by_class["layer"] == layer].set_index("class_name")["weight"]
        for name, weight in zip(rows["class_name"].astype(str), rows["weight"], strict=True):
            assert weight == pytest.approx(single.loc[name.split(", ")].sum(), rel=1e-9), name
        assert len(rows) == groups
