"""The evaluation stage: distances and accuracies as worked out by hand, whatever the workers."""

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from configs.cluster import Cluster
from storage.stages import FinishedStage, find_finished, open_finished
from storage.stores import Store
from storage.verify import stage_paths
from tasks.cluster.parallel import open_pool
from tasks.engine.life import Job
from tasks.interpreters import INTERPRETERS
from tasks.metrics.shape import shape_distance
from tasks.steps.interpretation import evaluation, features, selection
from tests.plans import cells, references

if TYPE_CHECKING:
    from tests.conftest import Run
    from tests.tasks.conftest import Plain

Tree = dict[str, Any]  # Any: YAML
LABEL = 3


def measures(stage: FinishedStage, label: int) -> dict[str, float]:
    """Return the measures of a class by name."""
    return dict(zip(stage.summary["measures"], np.asarray(stage.read("values"))[label].tolist(), strict=True))


def components(run: "Run", path_of: Any, label: int) -> dict[str, Any]:  # Any: a spec; arrays by name
    """Return the stored arrays of a class."""
    return {"components": np.asarray(open_finished(run.job.store, path_of).read("components")[label], np.float32)}


@pytest.mark.parametrize("selector", ["random", "moderate"])
def test_distances_are_those_of_the_columns_by_hand(
    finished_run: "Run", plain: "dict[str, Plain]", selector: str
) -> None:
    cell = next(c for c in cells(finished_run.plan) if (c.selector, c.budget) == (selector, 0.5))
    found = measures(open_finished(finished_run.job.store, cell.evaluation), LABEL)
    maps, ice = plain["val"].maps[plain["val"].of_class(LABEL)], INTERPRETERS["ice"]
    columns = []
    for spec in (cell.features, references(finished_run.plan)["small", 0, "ice"]):
        arrays = components(finished_run, spec, LABEL)
        columns.append(ice.columns(arrays, ice.encode(arrays, maps)))
    for name, alpha, normalise in (("0", 0.0, False), ("05", 0.5, True), ("1", 1.0, False)):
        by_hand = shape_distance(columns[0], columns[1], alpha, normalise)
        np.testing.assert_allclose(found[f"distance_{name}"], by_hand, rtol=1e-3, atol=1e-4)
        assert found[f"null_{name}"] >= 0
    assert found["n_rows"] == maps.shape[0] * maps.shape[1] * maps.shape[2]
    assert found["n_val"] == 4


def test_accuracies_are_those_of_rebuilt_maps_by_hand(finished_run: "Run", plain: "dict[str, Plain]") -> None:
    cell = next(c for c in cells(finished_run.plan) if (c.selector, c.budget) == ("moderate", 0.5))
    stage, ice, by_hand = open_finished(finished_run.job.store, cell.evaluation), INTERPRETERS["ice"], plain["val"]
    for label in range(10):
        rows, arrays = by_hand.of_class(label), components(finished_run, cell.features, label)
        maps = by_hand.maps[rows]
        rebuilt = ice.reconstruct(arrays, ice.encode(arrays, maps))
        logits, found = by_hand.predict(rebuilt), measures(stage, label)
        order = np.argsort(-logits, axis=1)
        np.testing.assert_allclose(found["accuracy"], (order[:, 0] == label).mean())
        np.testing.assert_allclose(found["accuracy_top5"], (order[:, :5] == label).any(1).mean())
        np.testing.assert_allclose(found["accuracy_plain"], (by_hand.logits[rows].argmax(1) == label).mean())
        np.testing.assert_allclose(found["agreement"], (order[:, 0] == by_hand.logits[rows].argmax(1)).mean())
        error = np.linalg.norm(maps - rebuilt) / np.linalg.norm(maps)
        np.testing.assert_allclose(found["error_val"], error, rtol=1e-3)


def test_all_data_are_at_no_distance_from_themselves(finished_run: "Run") -> None:
    cell = next(c for c in cells(finished_run.plan) if c.budget == 1.0)
    stage = open_finished(finished_run.job.store, cell.evaluation)
    for label in range(10):
        found = measures(stage, label)
        for name in ("0", "05", "1"):
            assert found[f"distance_{name}"] == pytest.approx(0, abs=1e-6)
            assert found[f"self_{name}"] == pytest.approx(0, abs=1e-6)
        assert found["rank"] == found["rank_reference"]


def digests(store: Store) -> dict[str, str]:
    """Return the digest of every array of every stage."""
    stages = {path: find_finished(store, path) for path in stage_paths(store)}
    return {f"{p}/{name}": d for p, s in stages.items() if s is not None for name, d in s.note["arrays"].items()}


def made_with(cluster: Tree, tree: Tree, new_run: Callable[[Tree], "Run"]) -> dict[str, str]:
    """Make a run with another cluster and return its digests."""
    other = new_run({**copy.deepcopy(tree), "cluster": cluster})
    with open_pool(Cluster.model_validate(cluster)) as pool:
        job = Job(other.job.store, pool, other.job.observer)
        type(other)(other.tree, other.config, other.plan, job).finish()
    return digests(other.job.store)


@pytest.mark.filterwarnings("ignore")  # Dask's own
def test_threads_give_the_same_bytes(finished_run: "Run", tiny_tree: Tree, new_run: Callable[[Tree], "Run"]) -> None:
    cluster = {"kind": "threads", "workers": 3}
    assert made_with(cluster, tiny_tree, new_run) == digests(finished_run.job.store)


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore")  # Dask's own
def test_processes_give_the_same_bytes(finished_run: "Run", tiny_tree: Tree, new_run: Callable[[Tree], "Run"]) -> None:
    cluster = {"kind": "local", "workers": 2}
    assert made_with(cluster, tiny_tree, new_run) == digests(finished_run.job.store)


def test_the_grouping_of_classes_changes_no_value(
    finished_run: "Run", copied_run: "Run", new_run: Callable[[Tree], "Run"], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = copy.deepcopy(copied_run.tree)
    tree["interpretation"] |= {"selectors": {"moderate": {}}, "budgets": [0.5], "gallery": 0}
    for kind in ("selection", "features", "evaluation"):
        copied_run.job.store.remove(kind)
    for module in (selection, features, evaluation):
        monkeypatch.setattr(module, "GROUP_VALUES", 300)  # one to three classes per partition
    run = new_run(tree).finish()
    (cell,) = cells(run.plan)
    for spec in (cell.selection, cell.features, cell.evaluation):
        one, other = (open_finished(r.job.store, spec) for r in (finished_run, run))
        assert one.layout.partitions == 1
        assert other.layout.partitions > 1
        for name in one.layout.arrays:
            np.testing.assert_array_equal(one.read(name), other.read(name))


def test_small_chunks_change_values_only_by_rounding(
    finished_run: "Run", copied_run: "Run", monkeypatch: pytest.MonkeyPatch
) -> None:
    for cell in cells(copied_run.plan):
        copied_run.job.store.remove(cell.evaluation.path)
    monkeypatch.setattr(evaluation, "CHUNK_VALUES", 1)  # two images at a time
    copied_run.finish()
    for cell in cells(finished_run.plan):
        one, other = (open_finished(r.job.store, cell.evaluation) for r in (finished_run, copied_run))
        names = one.summary["measures"]
        same = [index for index, name in enumerate(names) if not name.startswith("null_")]  # its draw is per chunk
        a, b = (np.asarray(stage.read("values"), np.float64)[:, same] for stage in (one, other))
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
