"""Decomposed heads: what they score, cover and cost, against plain loops over the network's own features."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from tasks.decomposition.controls import CONTROLS
from tasks.steps.decomposition.cost import BATCHES, read_times
from tasks.steps.decomposition.coverage import read_coverage
from tasks.steps.decomposition.features import open_head
from tasks.steps.decomposition.histogram import read_sets
from tasks.steps.decomposition.scores import read_scores
from tests.tasks.steps.decomposition.loops import answer, masked, opened, plain

if TYPE_CHECKING:
    from tests.conftest import Run


def test_heads_are_scored_as_loops_score_them(decomposed_run: "Run") -> None:
    found, store = answer(decomposed_run), decomposed_run.job.store
    features, full, labels = plain(decomposed_run, found.evaluate)
    head = open_head(store, found.evaluate, torch.device("cpu"))
    (whole,) = read_scores(opened(decomposed_run, found.full))
    assert whole.accuracy == np.mean(full.argmax(1) == labels)
    assert whole.agreement == 1.0
    for (shown, k2), spec in found.grid.items():
        predicted = masked(features, head, read_sets(store, found.histograms[shown], k2)).argmax(1)
        (score,) = read_scores(opened(decomposed_run, spec))
        assert score.accuracy == np.mean(predicted == labels)
        assert score.agreement == np.mean(predicted == full.argmax(1))
        right = [int(((predicted == labels) & (labels == c)).sum()) for c in range(10)]
        assert score.correct.tolist() == right
    assert len(found.grid) == 4


def test_controls_are_scored_with_the_same_number_of_features(decomposed_run: "Run") -> None:
    found, store = answer(decomposed_run), decomposed_run.job.store
    features, _, labels = plain(decomposed_run, found.evaluate)
    learn = opened(decomposed_run, found.learn)
    x, y = learn.read("features").astype(np.float64), learn.read("label")
    head = open_head(store, found.evaluate, torch.device("cpu"))
    weight = head.weight.detach().double().numpy()
    means = np.stack([x[y == c].mean(0) for c in range(10)])
    own = {
        "class-mean": means,
        "class-mean-minus-overall": means - x.mean(0),
        "weight": weight,
        "abs-weight": abs(weight),
        "mean-times-weight": means * weight,
    }
    for name, values in own.items():
        sets = np.argsort(-values, axis=1, kind="stable")[:, :4]
        (score,) = read_scores(opened(decomposed_run, found.controls[name]))
        assert score.accuracy == np.mean(masked(features, head, sets).argmax(1) == labels), name
    assert set(found.controls) == set(CONTROLS)
    draws = read_scores(opened(decomposed_run, found.controls["random"]))
    assert len(draws) == 3
    assert len({tuple(score.correct.tolist()) for score in draws}) > 1


def test_a_smaller_sample_is_scored_with_its_own_sets(decomposed_run: "Run") -> None:
    found, store = answer(decomposed_run), decomposed_run.job.store
    features, _, labels = plain(decomposed_run, found.evaluate)
    head = open_head(store, found.evaluate, torch.device("cpu"))
    predicted = masked(features, head, read_sets(store, found.need[2], 4)).argmax(1)
    (score,) = read_scores(opened(decomposed_run, found.need_scores[2]))
    assert score.accuracy == np.mean(predicted == labels)


def test_coverage_is_measured_image_by_image(decomposed_run: "Run") -> None:
    found, store = answer(decomposed_run), decomposed_run.job.store
    learn, sets = opened(decomposed_run, found.learn), read_sets(decomposed_run.job.store, found.histogram, 4)
    weight = open_head(store, found.learn, torch.device("cpu")).weight.detach().double().numpy()
    shares: dict[int, list[list[float]]] = {c: [] for c in range(10)}
    for x, label in zip(learn.read("features").astype(np.float64), learn.read("label").tolist(), strict=True):
        helping = np.maximum(weight[label] * x, 0)
        own = sorted(abs(x), reverse=True)[:3]
        chosen = sets[label]
        shares[label].append(
            [abs(x[chosen]).sum() / abs(x).sum(), helping[chosen].sum() / helping.sum(), sum(own) / abs(x).sum()]
        )
    expected = np.array([np.mean(shares[c], axis=0) for c in range(10)])
    coverage = read_coverage(store, found.coverage)
    np.testing.assert_allclose(coverage.l1_shares(), expected[:, 0], rtol=1e-12)
    np.testing.assert_allclose(coverage.contribution_shares(), expected[:, 1], rtol=1e-12)
    np.testing.assert_allclose(coverage.top_shares()[:, 0], expected[:, 2], rtol=1e-12)


def test_the_cost_is_that_of_the_layers(decomposed_run: "Run") -> None:
    found = answer(decomposed_run)
    summary = opened(decomposed_run, found.cost).summary
    convolutions = 8 * 8 * 8 * 9 * 1 + 4 * 4 * 16 * 9 * 8 + 4 * 4 * 16 * 9 * 16
    assert summary == {"total": convolutions + 160, "head": 160, "decomposed": 40, "depth": 4}
    times = read_times(decomposed_run.job.store, found.cost)
    assert [row["batch"] for row in times] == list(BATCHES)
    assert all(row["dense_ms"] > 0 and row["decomposed_ms"] > 0 for row in times)
