"""Other settings of question 2: counted by prediction, ranked otherwise, classes without images, more asked."""

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from tasks.decomposition import draw_normals
from tasks.steps.decomposition.ablation import read_accuracies
from tasks.steps.decomposition.coverage import read_coverage
from tasks.steps.decomposition.features import open_head
from tasks.steps.decomposition.histogram import read_sets
from tests.tasks.steps.decomposition.loops import answer, counted, opened

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML


def shorter(tree: Tree, **asked: object) -> Tree:
    """Return the config of a network that errs, without gates, with other questions."""
    tree["networks"]["small"]["train"]["epochs"] = 2
    del tree["networks"]["small"]["train"]["gates"]
    tree["decomposition"] = {"networks": ["small"], "k1": 3, "k2": 2, "gallery": 0, "ablation": None, **asked}
    return tree


def test_predictions_can_stand_for_labels(decomposed_tree: Tree, new_run: Callable[[Tree], "Run"]) -> None:
    run = new_run(shorter(decomposed_tree, group_by="prediction")).finish()
    found = answer(run)
    learn, stage = opened(run, found.learn), opened(run, found.histogram)
    features = learn.read("features").astype(np.float32)
    predicted = learn.read("logits").astype(np.float32).argmax(1)
    assert (predicted != learn.read("label")).any()
    counts, _ = counted(features, predicted, 3)
    np.testing.assert_array_equal(stage.read("counts"), counts)
    np.testing.assert_array_equal(stage.read("images"), np.bincount(predicted, minlength=10))
    coverage, sets = read_coverage(run.job.store, found.coverage), read_sets(run.job.store, found.histogram, 2)
    for label in np.unique(predicted).tolist():
        rows = abs(features[predicted == label].astype(np.float64))
        expected = (rows[:, sets[label]].sum(1) / rows.sum(1)).mean()
        np.testing.assert_allclose(coverage.l1_shares()[label], expected, rtol=1e-12)


@pytest.mark.parametrize("rank_by", ["value", "contribution"])
def test_other_ways_to_be_strong(decomposed_tree: Tree, new_run: Callable[[Tree], "Run"], rank_by: str) -> None:
    run = new_run(shorter(decomposed_tree, rank_by=rank_by, dtype="float16")).finish()
    found = answer(run)
    learn = opened(run, found.learn)
    assert learn.layout.arrays["features"].dtype == "float16"
    weight = open_head(run.job.store, found.learn, torch.device("cpu")).weight.detach().double().numpy()
    counts = np.zeros((10, 16), np.int64)
    for x, label in zip(learn.read("features").astype(np.float64), learn.read("label").tolist(), strict=True):
        scores = weight[label] * x if rank_by == "contribution" else x
        for j in sorted(range(16), key=lambda j: (-scores[j], j))[:3]:
            counts[label, j] += 1
    np.testing.assert_array_equal(opened(run, found.histogram).read("counts"), counts)


def test_outputs_without_images_change_nothing(decomposed_tree: Tree, new_run: Callable[[Tree], "Run"]) -> None:
    """A network that can say 13 classes, of which the data have 10."""
    tree = shorter(decomposed_tree, ablation={"scopes": ["label", "predicted", "union"], "draws": 2})
    tree["networks"]["small"]["arguments"]["classes"] = 13
    run = new_run(tree).finish()
    found = answer(run)
    histogram = opened(run, found.histogram)
    assert histogram.read("images").tolist() == [12] * 10 + [0] * 3
    sets = read_sets(run.job.store, found.histogram, 2)
    union = {*sets[:10].ravel().tolist()}
    assert {*sets[10:].ravel().tolist()} - union, "the sets of no images must be others for this to show anything"
    evaluate = opened(run, found.evaluate)
    head = open_head(run.job.store, found.evaluate, torch.device("cpu"))
    features, labels = evaluate.read("features").astype(np.float32), evaluate.read("label").astype(np.int64)
    normals = draw_normals(evaluate.read("sample_id").astype(np.int64), 16, seed=0, draw=0)
    changed = np.where(np.isin(np.arange(16), [*union]), normals.astype(np.float32), features)
    with torch.inference_mode():
        expected = float((head(torch.from_numpy(changed)).argmax(1).numpy() == labels).mean())
    assert read_accuracies(opened(run, found.ablations["standard", "union"]))["influential"][0] == expected


def test_what_was_asked_before_is_kept(decomposed_run: "Run", tmp_path: Any, new_run: Callable[[Tree], "Run"]) -> None:
    """Another k1, k2 or noise makes its own stages and no other."""
    tree = copy.deepcopy(decomposed_run.tree)
    tree["decomposition"]["k1"].append(5)
    tree["decomposition"]["k2"].append(3)
    tree["decomposition"]["ablation"]["noises"].append("zero")
    before, after = decomposed_run.plan.stages, new_run(tree).plan.stages
    added = [spec for spec in after if spec not in before]
    # k1: a count, a histogram and its three scores; k2: scores of two k1 more
    kinds = sorted(spec.stage for spec in added)
    assert kinds == sorted(["strongest", "histogram", *["head-scores"] * 5, *["ablation"] * 3])
    assert [spec for spec in before if spec not in after] == []
