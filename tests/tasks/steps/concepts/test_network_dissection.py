"""Network Dissection as stages: the counts of a per-label loop, its null, killed stages, and bad input."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from configs.schema import SklearnDigits
from storage.specs import StageSpec
from storage.stages import find_finished, open_finished
from tasks.cluster.parallel import PartitionError
from tasks.detectors.dissection import Dissection
from tasks.io.mini_broden import MiniBrodenSource
from tasks.steps.common.manifest import manifest_spec
from tasks.steps.common.survey import PlanSurvey
from tasks.steps.concepts import network_dissection, thresholds
from tasks.steps.concepts.annotations import check_label_maps
from tasks.steps.concepts.detector import Probed
from tasks.steps.concepts.layer_maps import layer_maps
from tasks.steps.concepts.network_dissection import (
    NETWORK_DISSECTION,
    NETWORK_DISSECTION_DETECTOR,
    NULL,
    TRUE,
    read_dissection,
    read_vocabulary,
)
from tasks.steps.concepts.responses import RESPONSES, responses_specs
from tasks.steps.concepts.thresholds import THRESHOLDS, open_thresholds
from tests.tasks.steps.concepts.probing import DEAD, SIZE, Probing, content, lose, probing

Floats = NDArray[np.float64]
QUANTILE = 0.05


def planned(run: Probing, layer: str = "conv", **settings: object) -> StageSpec:
    """Return the detector's last stage."""
    words = StageSpec("words", 1)
    parameters = {"quantile": QUANTILE, **settings}
    return NETWORK_DISSECTION_DETECTOR.plan(run.responses[layer], Probed(words, None), layer, parameters, 7)


def made(run: Probing, spec: StageSpec) -> StageSpec:
    """Make the stages of the detector."""
    run.make(THRESHOLDS, spec.inputs["thresholds"])
    run.make(NETWORK_DISSECTION, spec)
    return spec


def stored_maps(run: Probing, layer: str) -> Floats:
    """Return the maps (N, K, h, w) that the responses stage keeps; of tokens, all but the first."""
    values = open_finished(run.job.store, run.responses[layer]).read(f"maps.{layer}").astype(np.float64)
    if layer == "tokens":
        values = values[:, 0, 1:].reshape(len(values), 8, 8, -1)
    return values.transpose(0, 3, 1, 2)


def on_pixels(maps: Floats, quantile: float) -> NDArray[np.bool_]:
    """Return where each enlarged map is above its threshold, (N, K, SIZE, SIZE)."""
    threshold = np.quantile(maps, 1 - quantile, axis=(0, 2, 3))
    large = F.interpolate(torch.from_numpy(maps), (SIZE, SIZE), mode="bilinear", align_corners=False).numpy()
    return np.asarray(large > threshold[:, None, None])


def looped(maps: Floats, masks: NDArray[np.int32], category_of: NDArray[np.int64], restriction: str) -> Dissection:
    """Count with a loop over labels."""
    on, n_labels = on_pixels(maps, QUANTILE), len(category_of)
    here = np.stack([(masks == label).any(axis=1) for label in range(n_labels)])  # (L, N, H, W)
    here[0] = False
    intersection = np.stack([(on & region[:, None]).sum((0, 2, 3)) for region in here], axis=1)
    area = []
    for category in range(category_of.max() + 1):
        covered = here[category_of == category].any(axis=0)
        if restriction == "image":
            covered = np.broadcast_to(covered.any((1, 2))[:, None, None], covered.shape)
        elif restriction == "none":
            covered = np.ones_like(covered)
        area.append((on & covered[:, None]).sum((0, 2, 3)))
    return Dissection(intersection, here.sum((1, 2, 3)), np.stack(area, axis=1), np.zeros(maps.shape[1]), category_of)


@pytest.mark.parametrize(
    ("layer", "restriction"), [("conv", "image"), ("conv", "region"), ("conv", "none"), ("tokens", "image")]
)
def test_counts_are_those_of_a_loop_over_labels(tmp_path: Path, layer: str, restriction: str) -> None:
    run = probing(tmp_path)
    spec = made(run, planned(run, layer, category_restriction=restriction))
    vocabulary, maps, masks = MiniBrodenSource(1, SIZE, 0).vocabulary(), stored_maps(run, layer), run.masks()
    found = read_dissection(run.job.store, spec)
    np.testing.assert_allclose(found.threshold, np.quantile(maps, 1 - QUANTILE, axis=(0, 2, 3)), rtol=1e-12)
    expected = looped(maps, masks, vocabulary.category_of, restriction)
    for name in ("intersection", "label_area", "unit_area", "iou"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    assert found.intersection.sum() > 0
    kept = read_vocabulary(run.job.store, spec)
    assert (kept.names, kept.categories) == (vocabulary.names, vocabulary.categories)
    np.testing.assert_array_equal(kept.category_of, vocabulary.category_of)


def test_the_null_has_the_label_maps_of_other_images(tmp_path: Path) -> None:
    from tasks.concepts.nulls import shuffled_images

    run = probing(tmp_path)
    spec = made(run, planned(run))
    category_of = MiniBrodenSource(1, SIZE, 0).vocabulary().category_of
    exchanged = run.masks()[shuffled_images(len(run.keys()), 7)]
    expected = looped(stored_maps(run, "conv"), exchanged, category_of, "image")
    null = read_dissection(run.job.store, spec, NULL)
    np.testing.assert_array_equal(null.intersection, expected.intersection)
    np.testing.assert_array_equal(null.unit_area, expected.unit_area)
    true = read_dissection(run.job.store, spec, TRUE)
    np.testing.assert_array_equal(null.label_area, true.label_area)
    assert (null.intersection != true.intersection).any()


def test_words_take_the_best_of_their_labels(tmp_path: Path) -> None:
    run = probing(tmp_path)
    spec = made(run, planned(run))
    vocabulary = MiniBrodenSource(1, SIZE, 0).vocabulary()
    iou, null = (read_dissection(run.job.store, spec, of).iou for of in (TRUE, NULL))
    words = list(dict.fromkeys(vocabulary.names[1:]))  # mini-Broden's names are words already
    found = NETWORK_DISSECTION_DETECTOR.read(run.job.store, spec)
    assert found.similarity.shape == (6, len(words))
    for index, word in enumerate(words):
        labels = [number for number, name in enumerate(vocabulary.names) if name == word and number]
        np.testing.assert_array_equal(found.similarity[:, index], iou[:, labels].max(axis=1).astype(np.float32))
    np.testing.assert_array_equal(found.null_best, null.max(axis=1).astype(np.float32))
    np.testing.assert_array_equal(np.flatnonzero(found.dead), [DEAD])
    assert not found.similarity[DEAD].any()
    assert found.similarity[DEAD - 1].any()
    assert found.null_best[DEAD] == 0


def test_stored_and_recomputed_maps_give_the_same_counts(tmp_path: Path) -> None:
    results = []
    for name, kept in (("one", True), ("two", False)):
        (tmp_path / name).mkdir()
        run = probing(tmp_path / name, kept=kept)
        spec = made(run, planned(run, maps="stored" if kept else "recomputed"))
        results.append([content(run.job, each) for each in (spec.inputs["thresholds"], spec)])
    assert results[0] == results[1]


def test_the_key_does_not_depend_on_where_maps_come_from(tmp_path: Path) -> None:
    run = probing(tmp_path)
    assert planned(run, maps="stored").key == planned(run, maps="recomputed").key == planned(run).key
    assert planned(run, category_restriction="none").key != planned(run).key
    assert planned(run, category_restriction="none").inputs["thresholds"].key == planned(run).inputs["thresholds"].key


@pytest.mark.parametrize("kind", ["thresholds", "counts"])
def test_a_killed_stage_loses_one_partition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    run = probing(tmp_path)
    spec = made(run, planned(run))
    step, lost = NETWORK_DISSECTION, spec
    module: ModuleType = network_dissection
    if kind == "thresholds":
        step, module, lost = THRESHOLDS, thresholds, spec.inputs["thresholds"]
    before = content(run.job, lost)
    lose(tmp_path, lost, 1)
    assert find_finished(run.job.store, lost.path) is None
    seen = []

    def spied(*arguments: Any) -> Any:  # Any: passed on
        seen.append(arguments[3])
        return layer_maps(*arguments)

    monkeypatch.setattr(module, "layer_maps", spied)
    run.make(step, lost)
    assert seen == [(32, 64)]
    assert content(run.job, lost) == before


def test_thresholds_are_cached_but_exact_for_vectors_too(tmp_path: Path) -> None:
    run = probing(tmp_path)
    spec = planned(run, "fc").inputs["thresholds"]
    run.make(THRESHOLDS, spec)
    found = open_thresholds(run.job.store, spec)
    values = stored_maps(run, "fc")[:, :, 0, 0]
    np.testing.assert_allclose(found.value, np.quantile(values, 1 - QUANTILE, axis=0), rtol=1e-12)
    assert not found.dead.any()


def test_the_plan_sizes_the_stages(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    run, again = probing(tmp_path / "one"), probing(tmp_path / "two", kept=False)
    survey, spec = PlanSurvey(None), made(run, planned(run))
    for step, each in ((THRESHOLDS, spec.inputs["thresholds"]), (NETWORK_DISSECTION, spec)):
        finished = open_finished(run.job.store, each)
        assert step.size(each, survey).written == finished.layout.n_bytes
        assert "again" not in step.size(each, survey).note
        other = planned(again) if each is spec else planned(again).inputs["thresholds"]
        assert "runs small on all images again" in step.size(other, survey).note
        assert step.size(other, survey).peak > step.size(each, survey).peak
    fine = planned(run, quantile=0.005)
    assert (
        "a label on more than 12.5% of the pixels cannot reach IoU 0.04" in NETWORK_DISSECTION.size(fine, survey).note
    )


def test_a_probing_set_without_label_maps_is_refused_by_the_plan(tmp_path: Path) -> None:
    run = probing(tmp_path)
    digits = manifest_spec("digits", SklearnDigits(source="sklearn-digits"))
    spec = NETWORK_DISSECTION_DETECTOR.plan(
        responses_specs(run.watched, digits, run.asked, kept_maps=False)["conv"],
        Probed(StageSpec("words", 1), None),
        "conv",
        {},
        0,
    )
    with pytest.raises(ValueError, match=r"^data\.digits: expected a probing set with label maps, found") as found:
        check_label_maps(spec.inputs["responses"], PlanSurvey(None))
    assert "`concepts.detectors.network-dissection` needs them" in str(found.value)
    assert "\n" not in str(found.value)


def test_layers_that_are_not_maps_are_refused_by_the_plan(tmp_path: Path) -> None:
    run = probing(tmp_path, layers=("odd",), kept=False)
    spec = planned(run, "odd")
    for step, each in ((THRESHOLDS, spec.inputs["thresholds"]), (NETWORK_DISSECTION, spec)):
        with pytest.raises(ValueError, match=r"^concepts\.detectors\.network-dissection: networks\.small: layer 'odd'"):
            step.size(each, PlanSurvey(None))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quantile": 2.0}, "quantile: expected a share 0 to 1, found 2.0"),
        ({"quantile": "half"}, "quantile: expected a share 0 to 1, found 'half'"),
        ({"category_restriction": "pixel"}, "category_restriction: expected image, region or none, found 'pixel'"),
        ({"maps": "kept"}, "maps: expected stored or recomputed, found 'kept'"),
        ({"top_k": 3}, "top_k: unknown parameter; known: quantile, category_restriction, maps, temperature, tau"),
    ],
)
def test_bad_parameters_name_their_key(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    run = probing(tmp_path)

    def sizes() -> None:
        spec = planned(run, **settings)
        for step, each in ((THRESHOLDS, spec.inputs["thresholds"]), (NETWORK_DISSECTION, spec)):
            step.size(each, PlanSurvey(None))

    with pytest.raises(ValueError) as found:
        sizes()
    assert str(found.value) == f"concepts.detectors.network-dissection.{message}"


def test_activations_beyond_float16_are_refused_by_both(tmp_path: Path) -> None:
    run = probing(tmp_path, kept=False)
    state = torch.load(tmp_path / "weights.pt", weights_only=True)
    state["conv.weight"] *= 1e7
    torch.save(state, tmp_path / "weights.pt")
    responses = responses_specs(run.watched, run.manifest, run.asked, kept_maps=False)["conv"]
    run.make(RESPONSES, responses)
    spec = NETWORK_DISSECTION_DETECTOR.plan(responses, Probed(StageSpec("words", 1), None), "conv", {}, 0)
    with pytest.raises(PartitionError, match="largest float16"):
        run.make(THRESHOLDS, spec.inputs["thresholds"])
