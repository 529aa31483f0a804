"""Neurons in the space of words: embedding, distances and counts against plain NumPy; tau; dead neurons; anchors."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from storage.results import read_table
from storage.specs import StageSpec
from storage.stages import FinishedStage, open_finished
from tasks.detectors.defaults import default_tau
from tasks.steps.common.survey import PlanSurvey
from tasks.steps.concepts.clip_dissect import CLIP_DISSECT
from tasks.steps.concepts.concept_side import CONCEPT_SIDE, concept_side_spec
from tasks.steps.concepts.detectors import DETECTORS
from tasks.steps.concepts.neurons import (
    ANCHORS_FILE,
    BEST,
    NEURONS,
    TAUS_FILE,
    TEMPERATURES_FILE,
    neurons_spec,
    read_neurons,
    temperature_of,
)
from tests.tasks.steps.concepts.probing import DEAD, content, lose
from tests.tasks.steps.concepts.scored import WIDTH, WORDS, scored, unit
from tests.tasks.steps.concepts.stand_ins import given, words_stage

Floats = NDArray[np.float64]
DETECTOR = "cos"
Make = Callable[..., FinishedStage]


@dataclass(frozen=True)
class Found:
    """What a detector found for six neurons, of which one is dead, by plain arrays."""

    make: Make
    detected: StageSpec
    words: StageSpec
    similarity: Floats
    null_best: Floats
    text: Floats

    @property
    def alive(self) -> NDArray[np.bool_]:
        """The neurons that are not dead."""
        found: NDArray[np.bool_] = np.arange(len(self.similarity)) != DEAD
        return found


@pytest.fixture
def found(tmp_path: Path) -> Found:
    """A finished `clip-dissect` stage, and a function that makes the neurons of it."""
    probed = scored(tmp_path)
    run = probed.run
    detected = DETECTORS[DETECTOR].plan(run.responses["conv"], probed.probed, "conv", {}, 3)
    finished = run.make(CLIP_DISSECT, detected)

    def make(
        settings: dict[str, Any] | None = None,
        *,
        anchors: StageSpec | None = None,
        temperatures: tuple[float, ...] = (),
    ) -> FinishedStage:
        spec = neurons_spec(detected, probed.words, anchors, DETECTOR, settings or {}, temperatures)
        return run.make(NEURONS, spec)

    arrays = {name: finished.read(name).astype(np.float64) for name in ("similarity", "null_best")}
    return Found(make, detected, probed.words, **arrays, text=probed.text.astype(np.float64))


def file(finished: FinishedStage, name: str) -> pd.DataFrame:
    """Return a table of a stage."""
    return read_table(finished.read_file(name), name)


def embedded(similarity: Floats, text: Floats, temperature: float) -> Floats:
    """Return the embeddings (K, e) from a loop over neurons."""
    rows = []
    for row in similarity:
        weight = np.exp((row - row.max()) / temperature)
        rows.append((weight[:, None] * text).sum(axis=0) / weight.sum())
    return np.stack(rows)


def distance(embedding: Floats, anchors: Floats) -> float:
    """Return the anchor distance from a loop over anchors."""
    return float(np.mean([min(np.linalg.norm(row - anchor) for row in embedding) for anchor in anchors]))


def test_the_embedding_and_its_distances_are_those_of_loops(found: Found) -> None:
    finished = found.make({"temperature": 0.2, "tau": 0.1})
    live = embedded(found.similarity[found.alive], found.text, 0.2)
    stored = finished.read("embedding").astype(float)
    np.testing.assert_allclose(stored[found.alive], live, atol=1e-6)
    np.testing.assert_array_equal(stored[DEAD], np.zeros(WIDTH))
    summary = finished.summary
    np.testing.assert_allclose(summary["d_anchor"], distance(live, found.text), rtol=1e-6)
    pairs = [np.linalg.norm(a - b) for i, a in enumerate(live) for b in live[i + 1 :]]
    np.testing.assert_allclose(summary["mean_pairwise"], np.mean(pairs), rtol=1e-6)


@pytest.mark.parametrize("tau", [-1.0, 0.2, 0.3, 2.0])
def test_counts_are_those_of_loops(found: Found, tau: float) -> None:
    summary = found.make({"tau": tau}).summary
    held = [k for k in range(6) if k != DEAD and found.similarity[k].max() > tau]
    assert summary["neurons"] == 6
    assert summary["dead"] == 1
    assert summary["tau"] == tau
    assert summary["interpretable"] == len(held)
    assert summary["distinct"] == len({int(found.similarity[k].argmax()) for k in held})
    assert summary["null_interpretable"] == sum(found.null_best[k] > tau for k in range(6) if k != DEAD)
    if tau == -1:
        assert len(held) == 5  # the dead neuron, of similarity 0, is never interpretable


def test_the_best_words_of_each_neuron(found: Found) -> None:
    table = read_neurons(found.make({"tau": 0.25}))
    assert len(table) == 6 * BEST
    for neuron in range(6):
        rows = table[table["neuron"] == neuron]
        order = np.argsort(-found.similarity[neuron], kind="stable")[:BEST]
        assert rows["word"].tolist() == order.tolist()
        assert rows["rank"].tolist() == list(range(BEST))
        np.testing.assert_allclose(rows["similarity"], found.similarity[neuron][order], rtol=1e-6)
        held = neuron != DEAD and found.similarity[neuron].max() > 0.25
        assert rows["interpretable"].tolist() == [held] * BEST
        assert rows["dead"].tolist() == [neuron == DEAD] * BEST
        np.testing.assert_allclose(rows["null_best"], found.null_best[neuron], rtol=1e-6)


def test_tau_is_given_calibrated_or_shipped(found: Found) -> None:
    calibrated = np.quantile(found.null_best[found.alive], 0.99)
    np.testing.assert_allclose(found.make().summary["tau"], calibrated, rtol=1e-6)
    np.testing.assert_allclose(found.make({"tau": "calibrated"}).summary["tau"], calibrated, rtol=1e-6)
    assert found.make({"tau": "shipped"}).summary["tau"] == 0.9
    assert found.make({"tau": 0.33}).summary["tau"] == 0.33


def test_the_shipped_tau_knows_live_neurons_words_and_parameters(tmp_path: Path) -> None:
    probed = scored(tmp_path)
    for name, settings in (("wpmi", {"top_k": 9, "lam": 0.3}), ("soft_wpmi", {"top_k": 20, "lam": 0.5})):
        detected = DETECTORS[name].plan(probed.run.responses["conv"], probed.probed, "conv", settings, 3)
        probed.run.make(CLIP_DISSECT, detected)
        spec = neurons_spec(detected, probed.words, None, name, {"tau": "shipped"}, ())
        summary = probed.run.make(NEURONS, spec).summary
        np.testing.assert_allclose(summary["tau"], default_tau(name, 5, WORDS, **settings))
        assert temperature_of(spec) == 0.1


def test_network_dissection_has_its_authors_tau_and_calibrates_on_request() -> None:
    from tasks.steps.concepts.detector import Detected
    from tasks.steps.concepts.neurons import _tau

    rng = np.random.default_rng(0)
    similarity = rng.random((8, 5)).astype(np.float32)
    null, dead = rng.random(8).astype(np.float32), np.arange(8) == 3
    detected, words = StageSpec("network-dissection", 1, {"layer": "a"}), StageSpec("words", 1)

    def tau(dead: NDArray[np.bool_], **settings: Any) -> float:  # Any: the method's own
        spec = neurons_spec(detected, words, None, "network-dissection", settings, ())
        return _tau(spec, Detected(similarity, null, dead))

    assert tau(dead) == tau(dead, tau="shipped") == 0.04
    np.testing.assert_allclose(tau(dead, tau="calibrated"), np.quantile(null[~dead], 0.99), rtol=1e-6)
    assert tau(np.ones(8, bool), tau="calibrated") == float("inf")


def test_the_tau_curve_is_that_of_loops_and_has_the_threshold_itself(found: Found) -> None:
    finished = found.make()
    curve, tau = file(finished, TAUS_FILE), finished.summary["tau"]
    assert curve["tau"].is_monotonic_increasing
    best = found.similarity.max(axis=1)
    for at, count, null in curve.itertuples(index=False):
        assert count == sum(best[k] > at for k in range(6) if k != DEAD)
        assert null == sum(found.null_best[k] > at for k in range(6) if k != DEAD)
    row = curve[np.isclose(curve["tau"], tau, rtol=0, atol=0)].iloc[0]
    assert (row["interpretable"], row["null"]) == (
        finished.summary["interpretable"],
        finished.summary["null_interpretable"],
    )
    assert curve["interpretable"].iloc[-1] * curve["null"].iloc[-1] == 0


def test_the_ablation_of_the_temperature_has_the_detectors_own(found: Found) -> None:
    finished = found.make({"temperature": 0.3}, temperatures=(1.0, 0.05))
    table = file(finished, TEMPERATURES_FILE)
    assert table["temperature"].tolist() == [0.05, 0.3, 1.0]
    live = found.similarity[found.alive]
    expected = [distance(embedded(live, found.text, each), found.text) for each in (0.05, 0.3, 1.0)]
    np.testing.assert_allclose(table["d_anchor"], expected, rtol=1e-6)
    assert table["d_anchor"].iloc[1] == finished.summary["d_anchor"]


def test_anchors_need_not_be_words_of_the_list(found: Found, tmp_path: Path) -> None:
    probed = scored(tmp_path)
    anchors = unit(np.random.default_rng(5).normal(size=(3, WIDTH)))
    spec = words_stage(probed.run.job, ["x", "y", "z"], anchors, probed.run.manifest, ["x", "y", "z"])
    finished = found.make({"temperature": 0.2}, anchors=spec)
    live = embedded(found.similarity[found.alive], found.text, 0.2)
    np.testing.assert_allclose(finished.summary["d_anchor"], distance(live, anchors.astype(float)), rtol=1e-6)
    table, numbers = file(finished, ANCHORS_FILE), np.flatnonzero(found.alive)
    assert table["word"].tolist() == ["x", "y", "z"]
    for (_, neuron, length), anchor in zip(table.itertuples(index=False), anchors, strict=True):
        lengths = np.linalg.norm(live - anchor, axis=1)
        assert neuron == numbers[lengths.argmin()]
        np.testing.assert_allclose(length, lengths.min(), rtol=1e-6)
    assert found.make().summary["d_anchor"] != finished.summary["d_anchor"]
    assert file(found.make(), ANCHORS_FILE).empty


def test_a_layer_of_dead_neurons_has_no_numbers(tmp_path: Path) -> None:
    probed = scored(tmp_path)
    zeros = {
        "similarity": np.zeros((4, WORDS), np.float32),
        "null_best": np.zeros(4, np.float32),
        "dead": np.ones(4, bool),
    }
    detected = given(probed.run.job, "clip-dissect", zeros, {}, parameters={"layer": "conv", "settings": {}})
    anchors = words_stage(probed.run.job, ["x"], probed.text[:1], probed.run.manifest, ["x"])
    finished = probed.run.make(NEURONS, neurons_spec(detected, probed.words, anchors, DETECTOR, {}, (0.5,)))
    expected = {"neurons": 4, "dead": 4, "interpretable": 0, "null_interpretable": 0, "distinct": 0}
    assert finished.summary == expected | {"d_anchor": None, "mean_pairwise": None, "tau": None}
    assert not read_neurons(finished)["interpretable"].any()
    assert file(finished, TAUS_FILE).empty
    assert file(finished, ANCHORS_FILE).empty
    assert file(finished, TEMPERATURES_FILE)["d_anchor"].isna().all()


def test_one_live_neuron_has_no_pairs(tmp_path: Path) -> None:
    probed = scored(tmp_path)
    similarity = np.zeros((2, WORDS), np.float32)
    similarity[1, 4] = 1
    arrays = {"similarity": similarity, "null_best": np.array([0, 0.5], np.float32), "dead": np.array([True, False])}
    detected = given(probed.run.job, "clip-dissect", arrays, {}, parameters={"layer": "conv", "settings": {}})
    summary = probed.run.make(NEURONS, neurons_spec(detected, probed.words, None, DETECTOR, {}, ())).summary
    assert (summary["mean_pairwise"], summary["interpretable"], summary["tau"]) == (None, 1, 0.5)
    assert summary["d_anchor"] > 0


def test_fewer_words_than_are_kept(tmp_path: Path) -> None:
    probed = scored(tmp_path)
    words = words_stage(probed.run.job, ["x", "y"], probed.text[:2], probed.run.manifest, ["x", "y"])
    side = concept_side_spec(probed.probed.side.inputs["images"], words)  # type: ignore[union-attr]
    probed.run.make(CONCEPT_SIDE, side)
    detected = DETECTORS[DETECTOR].plan(probed.run.responses["conv"], type(probed.probed)(words, side), "conv", {}, 3)
    probed.run.make(CLIP_DISSECT, detected)
    table = read_neurons(probed.run.make(NEURONS, neurons_spec(detected, words, None, DETECTOR, {}, ())))
    assert table["rank"].tolist() == [0, 1] * 6


def test_a_killed_stage_gives_the_same_bytes(found: Found, tmp_path: Path) -> None:
    finished = found.make()
    spec = neurons_spec(found.detected, found.words, None, DETECTOR, {}, ())
    assert finished.path == spec.path
    job = scored(tmp_path).run.job
    before = content(job, spec)
    lose(tmp_path, spec, 0)
    found.make()
    assert content(job, spec) == before
    assert NEURONS.size(spec, PlanSurvey(open_finished(job.store, spec).store)).written > 0


def test_the_key_has_all_that_matters(found: Found) -> None:
    def key(settings: dict[str, Any] | None = None, anchors: StageSpec | None = None, *more: float) -> str:
        return neurons_spec(found.detected, found.words, anchors, DETECTOR, settings or {}, more).key

    keys = [key(), key({"tau": 1}), key({"temperature": 0.5}), key(None, found.words), key(None, None, 0.5)]
    assert len(set(keys)) == len(keys)
    assert key(None, None, 0.5, 1.0) == key(None, None, 1.0, 0.5)
