"""Question 4 on a replay archive gives what it gives on the dense archive, bit for bit."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from torch import Tensor

from storage.stages import open_finished
from tasks.recording import passing
from tasks.recording import replay as replaying
from tasks.tracing import Contributions, running

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
COMPARED = ("contributions", "influence", "mislabel")


@pytest.mark.parametrize("record", [{}, {"steps": [[0, 4], [9, 21]]}])
def test_stages_on_a_replay_equal_those_on_the_dense_archive(
    mlp: Tree, new_run: "Callable[[Tree], Run]", tmp_path: Path, record: Tree
) -> None:
    runs = {}
    for kind in ("dense", "replay"):
        tree = {**copy.deepcopy(mlp), "store": str(tmp_path / kind)}
        tree["networks"]["net"]["train"]["record"] = {**record, "kind": kind}
        tree["data"]["digits"]["noise"] = {"share": 0.2}
        tree["tracing"]["evaluation"] = {"mislabel": True}
        runs[kind] = new_run(tree).finish()
    compared: list[str] = []
    pairs = [[one for one in runs[kind].plan.stages if one.stage in COMPARED] for kind in ("dense", "replay")]
    for dense, replay in zip(*pairs, strict=True):
        one, other = (open_finished(runs[k].job.store, s) for k, s in (("dense", dense), ("replay", replay)))
        assert {**one.summary, "queries": 0} == {**other.summary, "queries": 0}  # a path in the store
        compared.append(dense.stage)
        for name in one.layout.arrays:
            np.testing.assert_array_equal(one.read(name), other.read(name), err_msg=f"{dense.title} {name}")
    assert {*compared} == {*COMPARED}


def test_large_layers_are_projected_from_running_products(
    mlp: Tree, new_run: "Callable[[Tree], Run]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, move = [], running.RunningProducts.move

    def counted(products: running.RunningProducts, weight: Tensor) -> Contributions:
        made.append(1)
        return move(products, weight)

    monkeypatch.setattr(running.RunningProducts, "move", counted)
    found: dict[str, Any] = {}
    for kind in ("dense", "replay"):
        tree = {**copy.deepcopy(mlp), "store": str(tmp_path / kind)}
        tree["networks"]["net"]["train"]["record"] = {"kind": kind, "steps": [[0, 4], [9, 21]]}
        tree["tracing"]["bias"] = False
        if kind == "replay":
            for module, name, value in ((replaying, "BLOCK", 1), (passing, "LARGE", 1), (running, "LARGE", 1)):
                monkeypatch.setattr(module, name, value)
            monkeypatch.setattr(running, "MOST", 10**6)
        run = new_run(tree).finish()
        (spec,) = [one for one in run.plan.stages if one.stage == "contributions"]
        stage = open_finished(run.job.store, spec)
        found[kind] = {name: stage.read(name) for name in stage.layout.arrays}
    rows = (found["dense"]["gamma.1"] != 0).any(axis=1).sum()
    assert len(made) == rows  # of layer 1; layer 3 gives the logits, which need its weights
    assert rows > 10
    for name, expected in found["dense"].items():
        largest = np.nanmax(np.abs(expected))
        np.testing.assert_allclose(found["replay"][name], expected, rtol=1e-4, atol=1e-6 * largest, err_msg=name)
