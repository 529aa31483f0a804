"""The plane of words and neurons: one map for all stages, and what a reader gets."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from storage.specs import StageSpec
from tasks.steps.common.survey import PlanSurvey
from tasks.steps.concepts.plane import PLANE, plane_spec, read_plane
from tests.tasks.steps.concepts.probing import Probing, content, lose, probing
from tests.tasks.steps.concepts.stand_ins import neurons_stage, words_stage

WORDS = ["sky", "red", "wheel", "door", "tree"]


def made(place: Path) -> tuple[Probing, StageSpec, np.ndarray, list[np.ndarray]]:
    """Return a finished plane with its word vectors and the embeddings of three stages of neurons."""
    rng, run = np.random.default_rng(0), probing(place)
    text = rng.normal(size=(5, 4)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    words = words_stage(run.job, WORDS, text, run.manifest)
    embeddings = [rng.normal(size=(n, 4)).astype(np.float32) for n in (6, 6, 5)]
    stages = []
    for number, (layer, rows) in enumerate(zip(("conv", "tokens", "fc"), embeddings, strict=True)):
        n = len(rows)
        columns = {"neuron": np.arange(n), "word": 0, "similarity": 0.5, "interpretable": True, "dead": False}
        stages.append(neurons_stage(run.job, run.responses[layer], layer, pd.DataFrame(columns), rows, number))
    spec = plane_spec(words, None, stages, "pca")
    run.make(PLANE, spec)
    return run, spec, text, embeddings


def test_words_and_all_stages_lie_in_one_plane(tmp_path: Path) -> None:
    run, spec, text, embeddings = made(tmp_path)
    words, neurons = read_plane(run.job.store, spec)
    assert list(words.columns) == ["word", "x", "y"]
    assert words["word"].tolist() == WORDS
    assert list(neurons.columns) == ["stage", "neuron", "x", "y"]
    assert neurons["stage"].tolist() == [0] * 6 + [1] * 6 + [2] * 5
    assert neurons["neuron"].tolist() == [*range(6), *range(6), *range(5)]
    mean = text.astype(float).mean(axis=0)
    axes = np.linalg.svd(text - mean, full_matrices=False)[2][:2]
    for found, rows in ((words, text), *((neurons[neurons["stage"] == i], each) for i, each in enumerate(embeddings))):
        expected = (rows - mean) @ axes.T
        for column, name in enumerate("xy"):
            places = found[name].to_numpy()
            sign = np.sign(expected[:, column] @ places)  # an axis may point either way
            np.testing.assert_allclose(places, sign * expected[:, column], atol=1e-6)
    assert next(iter(spec.inputs)) == "words"


def test_a_killed_stage_gives_the_same_bytes(tmp_path: Path) -> None:
    run, spec, _, _ = made(tmp_path)
    before = content(run.job, spec)
    lose(tmp_path, spec, 0)
    run.make(PLANE, spec)
    assert content(run.job, spec) == before


def test_umap_without_its_package_is_refused_by_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, spec, _, _ = made(tmp_path)
    umap = plane_spec(spec.inputs["words"], None, [], "umap")
    assert umap.key != spec.key
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^concepts\.plane: expected the package umap-learn") as found:
        PLANE.size(umap, PlanSurvey(run.job.store))
    assert "\n" not in str(found.value)


def test_the_plan_sizes_the_stage(tmp_path: Path) -> None:
    run, spec, _, _ = made(tmp_path)
    size = PLANE.size(spec, PlanSurvey(run.job.store))
    assert size.written == 32 * (56 + 17) or size.written > 32 * 17
