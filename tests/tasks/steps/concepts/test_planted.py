"""Planted neurons: the true shares of labels, the rank of the true word, and its null, for both kinds of detectors."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from configs.concepts import Concepts
from configs.schema import SklearnDigits
from storage.specs import StageSpec
from tasks.concepts.nulls import permuted_activations, shuffled_images
from tasks.concepts.planted import planted_activations
from tasks.detectors import SIMILARITIES
from tasks.detectors.network_dissection import dissect
from tasks.io.mini_broden import MiniBrodenSource
from tasks.steps.common.manifest import MANIFEST, manifest_spec
from tasks.steps.common.survey import PlanSurvey
from tasks.steps.concepts import planted_maps, truth
from tasks.steps.concepts.concept_side import CONCEPT_SIDE, concept_side_spec
from tasks.steps.concepts.detector import Probed
from tasks.steps.concepts.detectors import DETECTORS
from tasks.steps.concepts.planted import NOISE, PLANTED, planted_spec, ranks, read_planted, read_ranks
from tasks.steps.concepts.planted_maps import GRID, label_grids
from tasks.steps.concepts.truth import true_coverage
from tasks.steps.concepts.view_checks import view_rows
from tests.tasks.steps.concepts.probing import SIZE, Probing, content, lose, probing
from tests.tasks.steps.concepts.stand_ins import given, words_stage

QUANTILE = 0.05
Floats = NDArray[np.float64]


def shares(masks: NDArray[np.int32], n_labels: int) -> Floats:
    """Return the share of each image that each label covers, (N, L)."""
    here = [(masks == label).any(axis=1).mean(axis=(1, 2)) for label in range(n_labels)]
    found = np.stack(here, axis=1)
    found[:, 0] = 0
    return found


def true_words() -> tuple[list[str], NDArray[np.int64]]:
    """Return the words of mini-Broden, and the word of each label number."""
    names = MiniBrodenSource(1, SIZE, 0).vocabulary().names
    words = list(dict.fromkeys(names[1:]))
    return words, np.array([-1, *(words.index(name) for name in names[1:])])


def dissected_spec(run: Probing, listed: str = "labels") -> StageSpec | None:
    """Return the spec of planted neurons for Network Dissection."""
    words = StageSpec("words", 1, place={"words": listed})
    settings = {"quantile": QUANTILE, "maps": "recomputed"}
    name = "network-dissection"
    return planted_spec(name, DETECTORS[name], run.manifest, run.asked, Probed(words, None), settings)


def scored_spec(run: Probing, name: str, text_noise: float = 0.0, **settings: object) -> tuple[StageSpec, Floats]:
    """Return the spec of planted neurons for cosines that follow the true shares, and the cosines."""
    words, of_label = true_words()
    covered = shares(run.masks(), len(of_label))
    images = np.zeros((len(covered), len(words)))
    for label, word in enumerate(of_label):
        if label:
            images[:, word] += covered[:, label]
    vectors = (images + text_noise * np.random.default_rng(1).normal(size=images.shape)).astype(np.float32)
    text = np.eye(len(words), dtype=np.float32)
    list_of_words = words_stage(run.job, words, text, run.manifest)
    arrays: dict[str, Any] = {"sample_id": np.arange(len(vectors)), "image": vectors}  # Any: any type
    summary = {"samples": len(vectors)}
    features = given(run.job, "image-features", arrays, {}, inputs={"data": run.manifest}, summary=summary)
    side = concept_side_spec(features, list_of_words)
    run.make(CONCEPT_SIDE, side)
    probed = Probed(list_of_words, side)
    spec = planted_spec(name, DETECTORS[name], run.manifest, run.asked, probed, settings)
    assert spec is not None
    return spec, vectors.astype(float)


def test_the_truth_is_the_share_of_each_label(tmp_path: Path) -> None:
    run = probing(tmp_path)
    spec = dissected_spec(run)
    assert spec is not None
    words, of_label = true_words()
    covered = shares(run.masks(), len(of_label))
    varying = np.flatnonzero(np.ptp(covered, axis=0) > 0)
    truth = true_coverage(run.job.store, spec)
    np.testing.assert_allclose(truth.coverage, covered[:, varying], atol=1e-7)
    np.testing.assert_array_equal(truth.word, of_label[varying])
    assert list(truth.names) == [words[word] for word in truth.word]


def test_classes_are_the_truth_without_label_maps(tmp_path: Path) -> None:
    run = probing(tmp_path)
    data = SklearnDigits(source="sklearn-digits", per_class={"train": 3, "val": 2})
    digits = manifest_spec("digits", data)
    run.make(MANIFEST, digits)
    spec = StageSpec("planted", 1, {"split": "val"}, {"data": digits})
    truth = true_coverage(run.job.store, spec)
    np.testing.assert_array_equal(truth.coverage, np.repeat(np.eye(10), 2, axis=0))
    np.testing.assert_array_equal(truth.word, np.arange(10))


@pytest.mark.parametrize("side", [32, 28, 14, 9])
def test_cells_hold_the_share_that_a_label_covers(side: int) -> None:
    rng = np.random.default_rng(0)
    planes = rng.integers(0, 4, (2, side, side), dtype=np.int32)
    labels, found = label_grids(planes)
    np.testing.assert_array_equal(labels, [1, 2, 3])
    for label, grid in zip(labels, found, strict=True):
        large = (planes == label).any(axis=0).repeat(GRID, axis=0).repeat(GRID, axis=1)
        expected = large.reshape(GRID, side, GRID, side).mean(axis=(1, 3))
        np.testing.assert_allclose(grid, expected, atol=1e-6)


def test_many_images_are_thinned_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = probing(tmp_path)
    monkeypatch.setattr(planted_maps, "MAX_IMAGES", 24)
    read: list[list[str]] = []
    original = MiniBrodenSource.masks

    def spied(source: MiniBrodenSource, keys: list[str]) -> NDArray[np.int32]:
        read.append(keys)
        return original(source, keys)

    monkeypatch.setattr(MiniBrodenSource, "masks", spied)
    spec = dissected_spec(run)
    assert spec is not None
    named = planted_maps.dissect_planted(run.job.store, spec)
    thinned = [run.keys()[position] for position in np.linspace(0, len(run.keys()) - 1, 24).astype(int)]
    first = [key for keys in read for key in keys][:24]
    assert first == thinned
    assert {key for keys in read for key in keys} == set(thinned)
    assert named.similarity.shape == named.null.shape == (len(named.names), len(true_words()[0]))


def test_ties_count_against_the_true_word() -> None:
    similarity = np.array([[0.1, 0.9, 0.5], [0.0, 0.0, 0.0], [0.4, 0.4, 0.1]])
    np.testing.assert_array_equal(ranks(similarity, np.array([2, 0, 0])), [1, 2, 1])


def test_dissected_neurons_equal_whole_arrays(tmp_path: Path) -> None:
    run = probing(tmp_path)
    spec = dissected_spec(run)
    assert spec is not None
    run.make(PLANTED, spec)
    masks, category_of = run.masks(), MiniBrodenSource(1, SIZE, 0).vocabulary().category_of
    words, of_label = true_words()
    grids = np.zeros((len(masks), len(of_label), GRID, GRID))
    for image, planes in enumerate(masks):
        for label in range(1, len(of_label)):
            large = (planes == label).any(axis=0).repeat(GRID, axis=0).repeat(GRID, axis=1)
            grids[image, label] = large.reshape(GRID, SIZE, GRID, SIZE).mean(axis=(1, 3))
    noise = np.stack(
        [
            np.random.default_rng((0, position)).standard_normal(grids.shape[1:], np.float32)
            for position in range(len(masks))
        ]
    )
    deviation = grids.std(axis=(0, 2, 3))
    maps = (grids + noise * (NOISE * deviation)[:, None, None]).astype(np.float32)
    planted = np.flatnonzero(deviation > 0)
    found = read_ranks(run.job.store, spec)
    assert found["word"].tolist() == [words[of_label[label]] for label in planted]
    for column, given_masks in (("rank", masks), ("null_rank", masks[shuffled_images(len(masks), 0)])):
        iou = dissect(maps, given_masks, category_of, quantile=QUANTILE).iou
        similarity = np.zeros((len(iou), len(words)))
        for label in range(1, len(of_label)):
            similarity[:, of_label[label]] = np.maximum(similarity[:, of_label[label]], iou[:, label])
        expected = [sum(s >= similarity[label, of_label[label]] for s in similarity[label]) - 1 for label in planted]
        # the last digits of a map may move a pixel over its threshold
        assert (found[column].to_numpy() != expected).mean() <= 0.05
    summary = read_planted(run.job.store, spec)
    assert summary["n"] == len(planted)
    assert summary["top1"] == (found["rank"] == 0).mean()
    assert summary["null_top5"] == (found["null_rank"] < 5).mean()
    assert summary["top5"] > 0.8 > summary["null_top5"]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("cos", {}),
        ("cos_cubed", {"min_norm": "scale-free"}),
        ("soft_wpmi", {"top_k": 10}),
        ("rank_reorder", {"top_fraction": 0.2, "seed": 4}),
    ],
)
def test_scored_neurons_equal_whole_arrays(tmp_path: Path, name: str, settings: dict[str, object]) -> None:
    run = probing(tmp_path, seed=2)
    spec, scores = scored_spec(run, name, 0.02, **settings)
    run.make(PLANTED, spec)
    truth = true_coverage(run.job.store, spec)
    rng = np.random.default_rng(2).standard_normal(truth.coverage.shape)
    activations = (truth.coverage + rng * NOISE * truth.coverage.astype(float).std(axis=0)).astype(np.float32)
    found = read_ranks(run.job.store, spec)
    for column, values in (("rank", activations), ("null_rank", permuted_activations(activations, 2))):
        similarity = SIMILARITIES[name](torch.from_numpy(values), torch.from_numpy(scores).float(), **settings)
        expected = ranks(np.asarray(similarity), truth.word)
        assert (found[column].to_numpy() != expected).mean() <= 0.1  # float32 here, float64 there
    summary = read_planted(run.job.store, spec)
    assert summary["top5"] > 0.85
    assert summary["null_top5"] < 0.4


@pytest.mark.parametrize("name", ["cos", "soft_wpmi"])
def test_labels_that_all_images_have_alike_plant_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run = probing(tmp_path)
    spec, _ = scored_spec(run, name, **({"top_k": 10} if name == "soft_wpmi" else {}))
    monkeypatch.setattr(
        truth, "label_coverage", lambda maps: np.full((len(maps), len(true_words()[1])), 0.25, np.float32)
    )
    run.make(PLANTED, spec)
    assert read_planted(run.job.store, spec)["n"] == len(read_ranks(run.job.store, spec)) == 0
    view = SimpleNamespace(planted=spec, name=name, probed=SimpleNamespace(captioner=None))
    rows = list(view_rows(run.job.store, [view]))  # type: ignore[list-item]  # what is read of a view
    assert [row["n"] for row in rows] == [0, 0]
    assert all(np.isnan(pd.DataFrame(rows)[["value", "baseline"]].to_numpy(np.float64)).ravel())  # not 0 %


def test_soft_wpmi_names_planted_neurons_by_the_true_shares() -> None:
    """The cosines are the true shares of the words: what is missing of 1 is the similarity's own."""
    source = MiniBrodenSource(400, SIZE, 0)
    names, (words, of_label) = source.vocabulary().names, true_words()
    covered = shares(source.masks([row.key for row in source.rows()]), len(names))
    cosines = np.zeros((len(covered), len(words)))
    for label in range(1, len(names)):
        cosines[:, of_label[label]] += covered[:, label]
    planted = np.flatnonzero(np.ptp(covered, axis=0) > 0)
    activations = planted_activations(covered[:, planted].astype(np.float32), NOISE, 0)
    similarity = np.asarray(SIMILARITIES["soft_wpmi"](activations, cosines))
    top5 = (ranks(similarity, of_label[planted]) < 5).mean()
    null = np.asarray(SIMILARITIES["soft_wpmi"](permuted_activations(activations, 0), cosines))
    assert len(planted) >= 50
    assert top5 >= 0.85
    assert (ranks(null, of_label[planted]) < 5).mean() < 0.3


def test_without_the_true_words_nothing_is_planted(tmp_path: Path) -> None:
    assert dissected_spec(probing(tmp_path), listed="/a/file.txt") is None


def test_the_key_has_all_that_matters(tmp_path: Path) -> None:
    run = probing(tmp_path)
    words, name = StageSpec("words", 1, place={"words": "labels"}), "network-dissection"

    def key(seed: int = 0, **settings: object) -> str:
        asked = Concepts.model_validate({**run.asked.model_dump(), "seed": seed})
        spec = planted_spec(name, DETECTORS[name], run.manifest, asked, Probed(words, None), settings)
        assert spec is not None
        return spec.key

    assert key() == key(quantile=0.005) == key(maps="recomputed")
    assert len({key(), key(seed=1), key(quantile=0.01), key(category_restriction="none")}) == 4


def test_a_killed_stage_gives_the_same_bytes(tmp_path: Path) -> None:
    run = probing(tmp_path)
    spec = dissected_spec(run)
    assert spec is not None
    run.make(PLANTED, spec)
    before = content(run.job, spec)
    lose(tmp_path, spec, 0)
    run.make(PLANTED, spec)
    assert content(run.job, spec) == before
    size = PLANTED.size(spec, PlanSurvey(run.job.store))
    assert isinstance(read_ranks(run.job.store, spec), pd.DataFrame)
    assert size.written > 0
