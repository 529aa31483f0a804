"""Question 4 on a replay archive gives what it gives on the dense archive, bit for bit."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from storage.stages import open_finished

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
