"""CLIP-Dissect as stages: every similarity equals its one-shot form, its null is reproducible, bad parameters."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage.specs import StageSpec
from storage.stages import open_finished
from tasks.cluster.parallel import PartitionError
from tasks.concepts.nulls import permuted_activations
from tasks.detectors import SIMILARITIES
from tasks.steps.common.survey import PlanSurvey
from tasks.steps.concepts import clip_dissect, concept_side
from tasks.steps.concepts.clip_dissect import CLIP_DISSECT, read_clip_dissect
from tasks.steps.concepts.detector import Detected, Probed
from tasks.steps.concepts.detectors import DETECTORS
from tests.tasks.steps.concepts.probing import COUNT, DEAD, content, lose
from tests.tasks.steps.concepts.scored import WORDS, Scored, scored
from tests.tasks.steps.concepts.stand_ins import given

SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("cos", {}),
    ("cos_cubed", {}),
    ("cos_cubed", {"min_norm": "scale-free"}),
    ("wpmi", {"top_k": 7, "a": 3, "lam": 0.5}),
    ("soft_wpmi", {"top_k": 20}),
    ("soft_wpmi", {"top_k": 30, "a": 5, "lam": 0.0, "p_start": 0.99, "p_end": 0.9}),
    ("rank_reorder", {"top_fraction": 0.2, "p": 2, "seed": 4}),
]


@pytest.fixture(autouse=True)
def _several_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concept_side, "MAX_ROWS", 25)
    monkeypatch.setattr(clip_dissect, "BLOCK", 8)


def planned(found: Scored, name: str, settings: dict[str, Any], layer: str = "conv", seed: int = 3) -> StageSpec:
    """Return the spec of the similarities of a layer."""
    return DETECTORS[name].plan(found.run.responses[layer], found.probed, layer, settings, seed)


def made(found: Scored, spec: StageSpec) -> Detected:
    """Make the similarities of a layer."""
    found.run.make(CLIP_DISSECT, spec)
    return read_clip_dissect(found.run.job.store, spec)


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_similarities_and_null_equal_the_one_shot_form(tmp_path: Path, name: str, settings: dict[str, Any]) -> None:
    found = scored(tmp_path)
    result = made(found, planned(found, name, settings))
    activations = found.run.pooled("conv")
    expected = SIMILARITIES[name](activations, found.cosines, **settings)
    assert result.similarity.shape == (6, WORDS)
    np.testing.assert_allclose(result.similarity, expected, rtol=1e-4, atol=1e-5)
    null = SIMILARITIES[name](permuted_activations(activations, 3), found.cosines, **settings)
    np.testing.assert_allclose(result.null_best, np.asarray(null).max(axis=1), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(result.dead, np.arange(6) == DEAD)
    np.testing.assert_array_equal(result.similarity[DEAD], np.zeros(WORDS))
    assert result.null_best[DEAD] == 0


@pytest.mark.parametrize("layer", ["tokens", "fc"])
def test_all_layers_of_a_responses_stage_can_be_named(tmp_path: Path, layer: str) -> None:
    found = scored(tmp_path)
    result = made(found, planned(found, "cos_cubed", {}, layer))
    activations = found.run.pooled(layer)
    np.testing.assert_allclose(result.similarity, SIMILARITIES["cos_cubed"](activations, found.cosines), atol=1e-5)


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_cosines_come_a_few_rows_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(concept_side, "BLOCK_BYTES", 4 * WORDS * rows + 1)
    found = scored(tmp_path)
    blocks = list(concept_side.scores_of(open_finished(found.run.job.store, found.probed.side)))  # type: ignore[arg-type]
    lengths = [len(cosines) for _, cosines in blocks]
    assert max(lengths) == min(rows, 25)  # a range of images has 25
    assert [start for start, _ in blocks] == np.cumsum([0, *lengths])[:-1].tolist()
    np.testing.assert_allclose(np.concatenate([cosines for _, cosines in blocks]), found.cosines, atol=1e-6)
    result = made(found, planned(found, "cos_cubed", {}))
    expected = SIMILARITIES["cos_cubed"](found.run.pooled("conv"), found.cosines)
    np.testing.assert_allclose(result.similarity, expected, rtol=1e-4, atol=1e-5)


def test_the_null_follows_the_seed_alone(tmp_path: Path) -> None:
    found = scored(tmp_path)
    first, other = (planned(found, "cos", {}, seed=seed) for seed in (3, 4))
    one, two = made(found, first), made(found, other)
    np.testing.assert_array_equal(one.similarity, two.similarity)
    assert (one.null_best != two.null_best).any()
    before = content(found.run.job, first)
    lose(tmp_path, first, 0)
    found.run.make(CLIP_DISSECT, first)
    assert content(found.run.job, first) == before


def test_neurons_with_few_positive_values_are_marked(tmp_path: Path) -> None:
    found = scored(tmp_path)
    spec = planned(found, "wpmi", {"top_k": COUNT // 2})
    made(found, spec)
    finished = open_finished(found.run.job.store, spec)
    values = found.run.pooled("conv")
    distinct = [len({value for value in column.tolist() if value > 0}) for column in values.T]
    np.testing.assert_array_equal(finished.read("few_positive"), np.array(distinct) < COUNT // 2)
    assert finished.summary == {"neurons": 6}


def test_the_key_has_all_that_matters(tmp_path: Path) -> None:
    found = scored(tmp_path)
    specs = [
        planned(found, "cos", {}),
        planned(found, "cos", {}, "fc"),
        planned(found, "cos", {}, seed=4),
        planned(found, "cos_cubed", {}),
        planned(found, "cos_cubed", {"min_norm": 0.5}),
    ]
    assert len({spec.key for spec in specs}) == len(specs)


@pytest.mark.parametrize(
    ("name", "settings", "text"),
    [
        ("soft_wpmi", {}, "soft_wpmi.top_k: expected at most the 70 probing images, found 100; lower it, or take more"),
        ("wpmi", {"top_k": COUNT + 1}, f"wpmi.top_k: expected at most the 70 probing images, found {COUNT + 1}"),
        ("wpmi", {"top_k": 0}, "wpmi: "),
        ("wpmi", {"top_k": True}, "wpmi: "),
        ("wpmi", {"top_k": "many"}, "wpmi: "),
        ("wpmi", {"p_start": 0.9}, "wpmi: "),
        ("cos", {"a": 1}, "cos: "),
        ("cos_cubed", {"min_norm": "free"}, "cos_cubed: "),
        ("soft_wpmi", {"top_k": 5, "p_start": 2}, "soft_wpmi: "),
        ("rank_reorder", {"top_fraction": 0}, "rank_reorder: "),
    ],
)
def test_bad_parameters_are_named_at_plan_time(tmp_path: Path, name: str, settings: dict[str, Any], text: str) -> None:
    found = scored(tmp_path)
    with pytest.raises(ValueError, match=r"^concepts\.detectors\.") as caught:
        CLIP_DISSECT.size(planned(found, name, settings), PlanSurvey(found.run.job.store))
    assert str(caught.value).startswith(f"concepts.detectors.{text}")
    assert len(str(caught.value).splitlines()) == 1
    if "top_k" not in text and settings:
        assert next(iter(settings)) in str(caught.value) or "p_start" in str(caught.value)


def test_as_many_top_images_as_there_are_fit(tmp_path: Path) -> None:
    found = scored(tmp_path)
    spec = planned(found, "wpmi", {"top_k": COUNT})
    assert CLIP_DISSECT.size(spec, PlanSurvey(found.run.job.store)).written > 0
    assert np.isfinite(made(found, spec).similarity).all()


def test_cosines_of_other_images_are_refused(tmp_path: Path) -> None:
    found = scored(tmp_path)
    store = found.run.job.store
    side = found.probed.side
    assert side is not None
    finished = open_finished(store, side)
    for ids, text in (
        (np.arange(COUNT), "expected sample "),
        (finished.read("sample_id")[:-1], f"expected the {COUNT} samples of "),
    ):
        n = len(ids)
        arrays = {"sample_id": ids, "cosine": found.cosines[:n], "moments": finished.read("moments")}
        other = given(
            found.run.job,
            f"concept-side-{n}",
            arrays,
            {},
            inputs={"words": found.words},
            summary={"words": WORDS, "samples": n},
        )
        spec = DETECTORS["cos"].plan(found.run.responses["conv"], Probed(found.words, other), "conv", {}, 0)
        with pytest.raises(PartitionError, match=text):
            found.run.make(CLIP_DISSECT, spec)
