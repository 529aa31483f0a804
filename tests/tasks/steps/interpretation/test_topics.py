"""Topics from config to results: what a run stores is what the pure functions give, after a stop as without one."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from configs.load import ConfigError
from flows.progress import planned_stages
from storage.stages import begin_stage, open_finished
from tasks.capture import Split, run_head
from tasks.engine.life import complete
from tasks.engine.step import Work
from tasks.interpreters.shapley import exact_shapley
from tasks.interpreters.topic_training import TopicTraining
from tasks.interpreters.topics import rebuild, topic_amounts, topic_forward, unit_topics
from tasks.io.tensors import unpack_tensors
from tasks.metrics.shape import shape_distance
from tasks.steps.common.activations import open_split
from tasks.steps.common.costs import costs_of
from tasks.steps.interpretation import topic_scores as scores_module
from tasks.steps.interpretation import topics as stage_module
from tasks.steps.interpretation.results import interpretation_results, method_tables
from tasks.steps.interpretation.topic_scores import TOPIC_SCORES
from tasks.steps.interpretation.topics import RESULT, TOPICS, topics_spec
from tests.plans import cells, interpreted

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
SETTINGS = {"topics": 5, "hidden": 30, "epochs": 6, "frozen_epochs": 1, "lr": 0.02, "batch": 32, "shapley_images": 25}


@pytest.fixture(scope="module")
def topics_run(
    finished_run: "Run", new_run: Callable[[Tree], "Run"], tmp_path_factory: pytest.TempPathFactory
) -> "Run":
    """Return the tiny run with topics and the selector dgpruning, made."""
    tree = copy.deepcopy(finished_run.at(str(tmp_path_factory.mktemp("topics") / "store")).tree)
    tree["networks"]["small"]["train"] |= {"epochs": 40, "optimizer": {"kind": "adam", "lr": 0.01}}  # above random
    tree["interpretation"] |= {"selectors": {"dgpruning": {}}, "interpreters": {"topics": SETTINGS}}
    return new_run(tree).finish()


@dataclass(frozen=True)
class HeldOut:
    """The run's held-out samples: maps (n, h, w, d), labels and logits (n, ...), and the head of their network."""

    maps: NDArray[np.float32]
    labels: NDArray[np.int64]
    logits: NDArray[np.float32]
    split: Split

    def predict(self, maps: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the classes that the head gives to maps."""
        found: NDArray[np.int64] = run_head(self.split, maps).argmax(axis=1)
        return found


@pytest.fixture(scope="module")
def held(topics_run: "Run") -> HeldOut:
    """Return the held-out samples of the run."""
    (answer,) = interpreted(topics_run.plan)
    stage = open_finished(topics_run.job.store, answer.held_out)
    maps, logits = (np.asarray(stage.read(name), np.float32) for name in ("maps", "logits"))
    split = open_split(topics_run.job.store, answer.held_out, torch.device("cpu"))
    return HeldOut(maps, np.asarray(stage.read("label"), np.int64), logits, split)


def found_of(run: "Run", budget: float) -> dict[str, Tensor]:
    """Return the stored topics of a budget."""
    cell = next(one for one in cells(run.plan) if one.budget == budget)
    return unpack_tensors(open_finished(run.job.store, cell.features).read_file(RESULT))


def test_the_stages_are_one_chain_and_its_scores_per_coreset(topics_run: "Run") -> None:
    kinds = [spec.stage for spec in topics_run.plan.stages]
    assert [kinds.count(kind) for kind in ("topics", "topic-scores", "evaluation", "features")] == [2, 2, 2, 0]
    for cell in cells(topics_run.plan):
        stage = open_finished(topics_run.job.store, cell.features)
        assert stage.layout.partitions == 2  # seven epochs, five at a time
        assert len(stage.summary["losses"]) == 7
        assert stage.summary["losses"][-1] < stage.summary["losses"][0]
        assert [found["kept"] for found in stage.summary["classes"].values()] == [round(12 * cell.budget)] * 10


def test_the_evaluation_is_that_of_the_pure_functions(topics_run: "Run", held: HeldOut) -> None:
    half, full = (found_of(topics_run, budget) for budget in (0.5, 1.0))
    for cell in cells(topics_run.plan):
        mine = half if cell.budget == 0.5 else full
        stage = open_finished(topics_run.job.store, cell.evaluation)
        for label in range(10):
            rows = dict(zip(stage.summary["measures"], np.asarray(stage.read("values"))[label].tolist(), strict=True))
            maps = torch.from_numpy(held.maps[held.labels == label])
            rebuilt = topic_forward(maps, mine["topics"], mine["r1"], mine["r2"], 0.2).numpy()
            assert rows["accuracy"] == (held.predict(rebuilt) == label).mean()
            error = np.linalg.norm(maps.numpy() - rebuilt) / np.linalg.norm(maps.numpy())
            np.testing.assert_allclose(rows["error_val"], error, rtol=1e-4)
            reference, columns = ((maps @ unit_topics(one["topics"])).flatten(0, 2).numpy() for one in (full, mine))
            for name, alpha in (("0", 0.0), ("05", 0.5), ("1", 1.0)):
                expected = shape_distance(reference, columns, alpha=alpha, normalise=0 < alpha < 1)
                np.testing.assert_allclose(rows[f"distance_{name}"], expected, atol=2e-4)
            assert rows["null_0"] > 0
            assert rows["rank"] <= 5


def test_scores_against_subsets_by_hand(topics_run: "Run", held: HeldOut) -> None:
    cell = next(one for one in cells(topics_run.plan) if one.budget == 1.0)
    assert cell.scores is not None
    stage, found = open_finished(topics_run.job.store, cell.scores), found_of(topics_run, 1.0)
    topics, r1, r2 = found["topics"], found["r1"], found["r2"]
    full = float((held.logits.argmax(axis=1) == held.labels).mean())

    def accuracy(rows: Any, kept: Tensor | None = None) -> float:  # Any: an index
        amounts = topic_amounts(torch.from_numpy(held.maps[rows]), topics, 0.2)
        predicted = held.predict(rebuild(amounts, r1, r2, kept).numpy())
        return float((predicted == held.labels[rows]).mean())

    np.testing.assert_allclose(stage.summary["accuracy"], accuracy(slice(None)))
    np.testing.assert_allclose(stage.summary["accuracy_plain"], full)
    assert stage.summary["accuracy_random"] == 0.1
    np.testing.assert_allclose(stage.summary["completeness"], (accuracy(slice(None)) - 0.1) / (full - 0.1))
    few = np.unique(np.linspace(0, 39, 25).astype(int))
    few_full = float((held.logits.argmax(axis=1) == held.labels)[few].mean())

    def value(members: frozenset[int]) -> float:
        kept = torch.tensor([float(topic in members) for topic in range(5)])
        return (accuracy(few, kept) - 0.1) / (few_full - 0.1)

    assert full > 0.3
    gains = np.asarray(stage.read("shapley"), np.float64)
    assert np.abs(gains).max() > 0.05
    np.testing.assert_allclose(gains, exact_shapley(value, 5), atol=1e-12)
    unit = unit_topics(topics.double()).numpy()
    np.testing.assert_allclose(np.asarray(stage.read("cosine"), np.float64), unit.T @ unit, atol=1e-12)


def test_results_and_galleries_have_topics(topics_run: "Run") -> None:
    table = interpretation_results(topics_run.job.store, interpreted(topics_run.plan)).classes
    assert set(table["interpreter"]) == {"topics"}
    assert (table[table["budget"] == 1.0]["distance_0"] < 1e-6).all()
    assert table["seconds"].min() > 0


def test_the_table_of_the_report_has_every_topic(topics_run: "Run") -> None:
    table = method_tables(topics_run.job.store, cells(topics_run.plan))["topics"]
    assert len(table) == 2 * 5
    full = table[table["budget"] == 1.0].set_index("topic")
    unit = unit_topics(found_of(topics_run, 1.0)["topics"].double()).numpy()
    cosine = unit.T @ unit - 9 * np.eye(5)
    np.testing.assert_array_equal(full["nearest"], cosine.argmax(axis=1))
    np.testing.assert_allclose(full["nearest_cosine"], cosine.max(axis=1), atol=1e-12)
    np.testing.assert_allclose((full["accuracy"] - 0.1) / (full["accuracy_plain"] - 0.1), full["completeness"])


def test_a_stopped_training_goes_on_bitwise_and_pools_do_not_matter_to_resuming(
    topics_run: "Run", monkeypatch: pytest.MonkeyPatch
) -> None:
    job = topics_run.job
    (answer,) = interpreted(topics_run.plan)
    selection = next(cell.selection for cell in answer.cells if cell.budget == 0.5)
    monkeypatch.setattr(stage_module, "POOL_VALUES", 1)  # a chunk at a time, as where a coreset exceeds the memory
    spec = topics_spec(answer.learn, selection, {**SETTINGS, "epochs": 7, "frozen_epochs": 4}, 3)
    found = []
    for stopped in (False, True):
        if stopped:
            job.store.remove(spec.path)
            stage = begin_stage(job.store, spec, TOPICS.layout(job.store, spec))
            for number in (0, 1):
                TOPICS.partition(Work((stage,), "cpu"), number)
        complete(job, TOPICS, [spec])
        found.append(open_finished(job.store, spec).read_file(RESULT))
    assert found[0] == found[1]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_maps_made_again_give_the_topics_of_stored_ones_up_to_rounding(
    topics_run: "Run", new_run: Callable[[Tree], "Run"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    tree = topics_run.at(str(tmp_path / "store")).tree
    tree["interpretation"] |= {"dtype": dtype, "budgets": [0.5], "gallery": 0}
    monkeypatch.setattr(stage_module, "POOL_VALUES", 40 * 8 * 8 * 16)  # more than one group of images in an epoch
    found = []
    for maps in ("stored", "recompute"):
        tree["interpretation"]["interpreters"] = {"topics": {**SETTINGS, "epochs": 2, "maps": maps}}
        run = new_run(copy.deepcopy(tree)).finish()
        (answer,) = interpreted(run.plan)
        assert ("maps" in open_finished(run.job.store, answer.learn).layout.arrays) == (maps == "stored")
        assert "maps" in open_finished(run.job.store, answer.held_out).layout.arrays
        found.append((found_of(run, 0.5), interpretation_results(run.job.store, interpreted(run.plan)).by_budget))
    (stored, values), (again, same) = found
    for name, tensor in stored.items():
        torch.testing.assert_close(again[name], tensor, rtol=0, atol=1e-4)
    np.testing.assert_allclose(same["phi_0"], values["phi_0"], atol=1e-3)


def test_maps_stay_where_another_method_reads_them_and_a_plan_names_the_passes(
    tiny_tree: Tree, new_run: Callable[[Tree], "Run"]
) -> None:
    topics = {**SETTINGS, "maps": "recompute", "topics": 3}
    tiny_tree["interpretation"]["interpreters"] = {"topics": topics}
    plan = new_run(tiny_tree).plan
    (answer,) = interpreted(plan)
    assert answer.learn.parameters["maps"] is False
    assert "maps" not in answer.held_out.parameters
    notes = [row.note for row in planned_stages(plan, None) if row.note]
    assert any(note.endswith("takes up to 3 passes of the network over the coreset") for note in notes)
    tiny_tree["interpretation"]["interpreters"] = {"topics": topics, "vebi": {}}
    assert interpreted(new_run(tiny_tree).plan)[0].learn.parameters["maps"] is False
    tiny_tree["interpretation"]["interpreters"] = {"topics": topics, "ice": {}}
    assert "maps" not in interpreted(new_run(tiny_tree).plan)[0].learn.parameters
    tiny_tree["interpretation"]["interpreters"] = {"vebi": {}}  # the keys of such runs stay
    assert "maps" not in interpreted(new_run(tiny_tree).plan)[0].learn.parameters


def test_the_time_of_scores_is_that_of_the_scoring(
    topics_run: "Run", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = topics_run.at(str(tmp_path / "store"))
    cell = next(one for one in cells(run.plan) if one.scores is not None)
    assert cell.scores is not None
    run.job.store.remove(cell.scores.path)

    def slow(value: object, m: int, **_: object) -> NDArray[np.float64]:
        time.sleep(0.05)
        return np.zeros(m)

    monkeypatch.setattr(scores_module, "shapley", slow)
    complete(run.job, TOPIC_SCORES, [cell.scores])
    (cost,) = costs_of(run.job.store, [cell.scores])
    assert cost.seconds >= 0.05


def test_a_head_without_gradients_is_one_line(topics_run: "Run", monkeypatch: pytest.MonkeyPatch) -> None:
    (answer,) = interpreted(topics_run.plan)
    spec = topics_spec(answer.learn, answer.cells[0].selection, {**SETTINGS, "epochs": 1}, 4)
    monkeypatch.setattr(stage_module, "head_of", lambda split: lambda maps, **_: maps.detach().mean(dim=(1, 2)))
    with pytest.raises(
        Exception, match=r"topics on dgpruning 0.5.*: expected a head that can be differentiated, found"
    ):
        complete(topics_run.job, TOPICS, [spec])


def test_losses_that_are_not_finite_are_one_line(topics_run: "Run", monkeypatch: pytest.MonkeyPatch) -> None:
    (answer,) = interpreted(topics_run.plan)
    spec = topics_spec(answer.learn, answer.cells[0].selection, SETTINGS, 5)
    monkeypatch.setattr(TopicTraining, "step", lambda *_, **__: float("inf"))
    with pytest.raises(Exception, match="expected finite losses, found inf in epoch 1; lower interpretation"):
        complete(topics_run.job, TOPICS, [spec])


def test_more_topics_than_channels_are_refused_at_plan_time(tiny_tree: Tree, new_run: Callable[[Tree], "Run"]) -> None:
    from configs.cluster import Cluster
    from tasks.steps.plan import stage_sizes

    tiny_tree["interpretation"]["interpreters"] = {"topics": {"topics": 9}}  # the tiny map has eight channels
    run = new_run(tiny_tree)
    with pytest.raises(
        ValueError, match=r"topics.topics: expected at most the 8 channels of small last-map .*, found 9"
    ):
        stage_sizes(Cluster(kind="serial"), None, run.plan.stages)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"topic": 1}, "interpretation.interpreters.topics.topic: unknown parameter; known: batch, concept"),
        ({"threshold": 2}, "interpretation.interpreters.topics: threshold: expected less than 1"),
    ],
)
def test_parameters_are_checked(
    tiny_tree: Tree, new_run: Callable[[Tree], "Run"], parameters: Tree, message: str
) -> None:
    tiny_tree["interpretation"]["interpreters"] = {"topics": parameters}
    with pytest.raises(ConfigError, match=message):
        new_run(tiny_tree)
