"""Class sums from the aggregate: equal to those of every step, from fewer bytes, where they follow from it."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from torch import nn

from storage.stages import FinishedStage, open_finished
from tasks.steps.tracing import influence
from tasks.steps.tracing.by_class import summed_at_once
from tasks.steps.tracing.series import Contributions
from tests.plans import traces

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
BATCHES = {"kind": "shuffled", "size": 3}
NewRun = Callable[[Tree], "Run"]


def summed_tree(tree: Tree, store: Path, *, groups: int = 10, **train: object) -> Tree:
    """Return a config with an aggregate of a dense archive, without momentum and weight decay."""
    found = {**copy.deepcopy(tree), "store": str(store)}
    plain: Tree = {"record": {"kind": "dense"}, "optimizer": {"kind": "sgd", "lr": 0.05}, "checkpoint_every": 5}
    found["networks"]["net"]["train"] |= plain | train
    found["tracing"] |= {"derive": {"aggregate": {"groups": groups}}}
    return found


def cnn() -> nn.Module:
    """Return a network with a strided convolution of groups."""
    layers = nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2, groups=2), nn.ReLU()
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(54, 10))


def opened(run: "Run") -> tuple[Contributions, FinishedStage]:
    trace = traces(run.plan)[0]
    return Contributions(run.job.store, trace.contributions), open_finished(run.job.store, trace.influence)


@pytest.mark.parametrize("asked", [{}, {"bias": True}, {"anchor": "displacement"}])
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_they_are_those_of_every_step(name: str, asked: Tree, mlp: Tree, new_run: NewRun, tmp_path: Path) -> None:
    tree = summed_tree(mlp, tmp_path / "store")
    if name == "cnn":
        tree["networks"]["net"] |= {"model": f"{__name__}:cnn", "arguments": {}}
    tree["tracing"] |= {"bias": False, **asked}
    run = new_run(tree).finish()
    found, _ = opened(run)
    trace = traces(run.plan)[0]
    assert trace.aggregate is not None
    for layer in found.layers:
        summed = summed_at_once(run.job.store, found, layer, trace.aggregate)
        assert summed is not None
        at_once = influence.described(run.job.store, found, layer, summed)
        by_steps = influence.described(run.job.store, found, layer)
        square = np.asarray(by_steps["square"], np.float64)
        for array in ("class_gamma", "parts", "square"):
            made, expected = (np.asarray(one[array], np.float64) for one in (at_once, by_steps))
            whole = square.reshape(-1, *[1] * (expected.ndim - 1))
            np.testing.assert_allclose(made / whole, expected / whole, atol=1e-6)


def test_the_stage_reads_what_is_smaller(mlp: Tree, new_run: NewRun, tmp_path: Path) -> None:
    """Of 80 queries, the sums of the small output layer take fewer bytes than its steps; those of the other do not."""
    tree = summed_tree(mlp, tmp_path / "store")
    tree["data"]["digits"]["per_class"] = {"train": 2, "val": 8}
    tree["tracing"] |= {"bias": False, "queries": {"count": 80}}
    run = new_run(tree).finish()
    found, stage = opened(run)
    trace = traces(run.plan)[0]
    assert trace.aggregate is not None
    first, last = found.layers
    for index, layer in ((0, first), (1, last)):
        assert (2 * 11 * 8 * (64 * 7 if layer == first else 7 * 10) < 2 * 4 * 40 * 80) == (layer == last)
        summed = summed_at_once(run.job.store, found, layer, trace.aggregate)
        expected = influence.described(run.job.store, found, layer, summed if layer == last else None)
        np.testing.assert_array_equal(stage.read("class_gamma", index, index + 1)[0], expected["class_gamma"])
        assert summed is not None
        assert (summed.by_class != influence.described(run.job.store, found, layer)["class_gamma"]).any()


def tallied(monkeypatch: pytest.MonkeyPatch, call: Callable[[], object]) -> dict[str, list[int]]:
    """Return the number of reads, and the bytes read, of each kind of array in a call."""
    tally: dict[str, list[int]] = {}
    original = FinishedStage.read

    def read(self: FinishedStage, name: str, *rows: Any) -> Any:  # Any: floats
        values = original(self, name, *rows)
        one = tally.setdefault(name.partition(".")[0], [0, 0])
        one[0], one[1] = one[0] + 1, one[1] + values.nbytes
        return values

    with monkeypatch.context() as patched:
        patched.setattr(FinishedStage, "read", read)
        call()
    return tally


def test_no_step_is_read(mlp: Tree, new_run: NewRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One read an epoch for each layer; without the aggregate each chunk of steps is read twice."""
    run = new_run(summed_tree(mlp, tmp_path / "store")).finish()
    found, _ = opened(run)
    trace, layer = traces(run.plan)[0], found.layers[0]
    aggregate, store = trace.aggregate, run.job.store
    assert aggregate is not None
    epochs = open_finished(store, aggregate).layout.arrays[f"sum.{layer}"].shape[0]

    def at_once() -> None:
        assert aggregate is not None
        influence.described(store, found, layer, summed_at_once(store, found, layer, aggregate))

    once = tallied(monkeypatch, at_once)
    steps = tallied(monkeypatch, lambda: influence.described(store, found, layer))
    assert "gamma" not in once
    assert once["sum"][0] == epochs
    chunks = -(-found.steps // found.stage.layout.arrays[f"gamma.{layer}"].rows)
    assert steps["gamma"] == [2 * chunks, 2 * 4 * found.steps * found.n_queries]
    assert "sum" not in steps


@pytest.mark.parametrize(
    ("case", "train", "asked", "groups"),
    [
        ("groups of classes", {}, {}, 3),
        ("a window", {}, {"window": [2, 9]}, 10),
        ("weight decay", {"optimizer": {"kind": "sgd", "lr": 0.05, "weight_decay": 0.01}}, {}, 10),
        ("a replay, split by example", {"record": {"kind": "replay"}, "batches": BATCHES}, {}, 10),
    ],
)
def test_every_step_is_read_where_sums_do_not_say_it(
    case: str, train: Tree, asked: Tree, groups: int, mlp: Tree, new_run: NewRun, tmp_path: Path
) -> None:
    tree = summed_tree(mlp, tmp_path / "store", groups=groups, **train)
    tree["tracing"] |= {"bias": False, **asked}
    run = new_run(tree).finish()
    trace = traces(run.plan)[0]
    assert trace.aggregate is not None
    window = tuple(asked["window"]) if asked else None
    found = Contributions(run.job.store, trace.contributions, window)
    stage = open_finished(run.job.store, trace.influence)
    for index, layer in enumerate(found.layers):
        assert summed_at_once(run.job.store, found, layer, trace.aggregate) is None, case
        expected = influence.described(run.job.store, found, layer)["class_gamma"]
        np.testing.assert_array_equal(stage.read("class_gamma", index, index + 1)[0], expected)


def test_steps_without_a_record_are_apart(mlp: Tree, new_run: NewRun, tmp_path: Path) -> None:
    """The sums of gaps are the part `unrecorded`, as step by step."""
    run = new_run(summed_tree(mlp, tmp_path / "store", record={"kind": "dense", "steps": [[0, 4], [9, 21]]})).finish()
    found, _ = opened(run)
    aggregate = traces(run.plan)[0].aggregate
    assert aggregate is not None
    for layer in found.layers:
        by_steps = influence.described(run.job.store, found, layer)
        summed = summed_at_once(run.job.store, found, layer, aggregate)
        assert summed is not None
        whole = np.asarray(by_steps["square"], np.float64)[:, None]
        at_once = influence.described(run.job.store, found, layer, summed)
        made, expected = (np.asarray(one["parts"], np.float64) for one in (at_once, by_steps))
        assert np.abs(expected[:, 2]).min() > 0
        np.testing.assert_allclose(made / whole, expected / whole, atol=1e-6)
