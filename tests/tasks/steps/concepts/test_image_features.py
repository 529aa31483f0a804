"""Vectors of probing images and their cosines with words, as stages: a file's rows, the tiny model, sums of chunks."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from configs.concepts import Concepts, Tiny
from configs.schema import MiniBroden
from storage.specs import StageSpec
from storage.stages import FinishedStage, open_finished
from tasks.cluster.parallel import PartitionError
from tasks.detectors.concept_side import ConceptMoments
from tasks.engine.life import Job, complete
from tasks.io.mini_broden import MiniBrodenSource
from tasks.io.tensors import pack_tensors
from tasks.steps.common.manifest import MANIFEST, manifest_spec
from tasks.steps.common.survey import PlanSurvey
from tasks.steps.concepts import concept_side, image_features
from tasks.steps.concepts.concept_side import CONCEPT_SIDE, concept_side_spec, open_side, scores_of
from tasks.steps.concepts.dual_encoder import DUAL_ENCODER, FILE, dual_encoder_spec, open_dual_encoder
from tasks.steps.concepts.image_features import IMAGE_FEATURES, image_features_spec
from tasks.steps.concepts.text_side import image_side
from tasks.steps.concepts.words import WORDS, words_spec
from tasks.training.dual_encoder import train_dual_encoder
from tests.probed import COUNT, FEATURES, SIZE, save_features
from tests.tasks.engine.two_stages import job_at
from tests.tasks.steps.concepts.probing import content, lose
from tests.tasks.steps.concepts.stand_ins import words_stage

if TYPE_CHECKING:
    from tests.conftest import Run

Values = NDArray[Any]  # Any: any type
STEPS = 2  # of the tiny model


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job in this process with the manifest of the probing set, next to a file of features."""
    save_features(tmp_path / FEATURES)
    found = job_at(tmp_path / "store")
    complete(found, MANIFEST, [probe()])
    return found


@pytest.fixture(autouse=True)
def _small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_features, "ROWS", 24)
    monkeypatch.setattr(image_features, "BATCH", 7)
    monkeypatch.setattr(concept_side, "MAX_ROWS", 20)


def probe() -> StageSpec:
    """Return the spec of the probing set's manifest."""
    return manifest_spec("probe", MiniBroden(source="mini-broden", count=COUNT, size=SIZE))


def asked(folder: Path, **settings: Any) -> Concepts:  # Any: of the image-text model
    """Return a section with an image-text model, by default the features of a file."""
    image_text = settings or {"kind": "features", "path": str(folder / FEATURES), "words": "words"}
    section = {"networks": ["net"], "layers": ["a"], "probe": {"data": "probe"}, "image_text": image_text}
    return Concepts.model_validate(section)


def features(job: Job, folder: Path, **settings: Any) -> StageSpec:  # Any: of the image-text model
    """Make the vectors of all images."""
    spec = image_features_spec(probe(), None, image_side(asked(folder, **settings)))
    complete(job, IMAGE_FEATURES, [spec])
    return spec


def change(folder: Path, **arrays: Values | None) -> None:
    """Write the file of features with other arrays; None removes one."""
    with np.load(folder / FEATURES) as archive:
        kept = {**archive, **arrays}
    np.savez(folder / FEATURES, **{name: array for name, array in kept.items() if array is not None})


def unit(rows: Values) -> Values:
    """Return rows of length 1."""
    found: Values = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return found


@pytest.mark.parametrize("shuffled", [False, True])
def test_the_rows_of_a_file_go_to_their_samples(job: Job, tmp_path: Path, shuffled: bool) -> None:
    with np.load(tmp_path / FEATURES) as archive:
        images = archive["images"]
    settings = {"kind": "features", "path": str(tmp_path / FEATURES), "words": "words"}
    if shuffled:
        order = np.random.default_rng(0).permutation(COUNT)
        change(tmp_path, images=images[order], sample=order)
        settings["ids"] = "sample"
    finished = open_finished(job.store, features(job, tmp_path, **settings))
    assert finished.layout.partitions == 3
    assert finished.summary == {"samples": COUNT}
    ids = finished.read("sample_id")
    assert sorted(ids.tolist()) == list(range(COUNT))
    np.testing.assert_allclose(finished.read("image").astype(float), unit(images)[ids], atol=1e-6)


@pytest.mark.parametrize(
    ("arrays", "settings", "text"),
    [
        ("ids", {"ids": "sample"}, "expected features of each sample, found none of sample id 0 (1 of 64 samples)"),
        ("few", {}, "expected 64 image rows, one for each sample of the data set, found 63"),
        ("many", {}, "expected 64 image rows, one for each sample of the data set, found 65"),
        ("zero", {}, "array 'images': expected features that are not zero, found zeros in row 3"),
        ("nan", {}, "array 'images': expected finite numbers, found others in row 3"),
        ("width", {}, "expected image and text features of one length, found 55 and 56; save features of one space"),
        ("absent", {"images": "pictures"}, "expected an array 'pictures', found "),
        ("none", {}, "expected an npz file of numbers and texts, found an error"),
    ],
)
def test_features_of_other_samples_are_named_at_plan_time(
    job: Job, tmp_path: Path, arrays: str, settings: dict[str, str], text: str
) -> None:
    with np.load(tmp_path / FEATURES) as archive:
        images = archive["images"]
    bad = images.copy()
    bad[3] = np.nan if arrays == "nan" else 0
    change(
        tmp_path,
        **{
            "ids": {"sample": np.arange(1, COUNT + 1)},
            "few": {"images": images[:-1]},
            "many": {"images": np.concatenate([images, images[:1]])},
            "zero": {"images": bad},
            "nan": {"images": bad},
            "width": {"images": images[:, :-1]},
        }.get(arrays, {}),
    )
    if arrays == "none":
        (tmp_path / FEATURES).write_bytes(b"nothing")
    model = image_side(
        asked(tmp_path, kind="features", path=str(tmp_path / FEATURES), **{"words": "words", **settings})
    )
    with pytest.raises(ValueError, match=r"^concepts\.image_text: features ") as caught:
        IMAGE_FEATURES.size(image_features_spec(probe(), None, model), PlanSurvey(job.store))
    assert text in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_samples_without_features_are_named_in_the_run(job: Job, tmp_path: Path) -> None:
    change(tmp_path, sample=np.arange(COUNT) + 10 * (np.arange(COUNT) > 60))
    with pytest.raises(PartitionError, match=r"concepts\.image_text: features .* found none of sample id 6[123] \("):
        features(job, tmp_path, kind="features", path=str(tmp_path / FEATURES), words="words", ids="sample")


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^concepts\.image_text\.path: file .*features\.npz does not exist"):
        image_side(asked(tmp_path))


def test_a_killed_stage_gives_the_same_bytes(job: Job, tmp_path: Path) -> None:
    spec = features(job, tmp_path)
    before = content(job, spec)
    lose(tmp_path, spec, 1)
    complete(job, IMAGE_FEATURES, [spec])
    assert content(job, spec) == before


def test_the_tiny_model_is_trained_once_and_encodes_the_drawn_pixels(job: Job, tmp_path: Path) -> None:
    encoder = dual_encoder_spec(Tiny(steps=STEPS, seed=1))
    (finished,) = complete(job, DUAL_ENCODER, [encoder])
    state = train_dual_encoder(1, steps=STEPS)
    assert finished.read_file(FILE) == pack_tensors(state)
    spec = features(job, tmp_path, kind="tiny", steps=STEPS, seed=1)
    assert spec.inputs["encoder"] == encoder
    found = open_finished(job.store, spec)
    source = MiniBrodenSource(COUNT, SIZE, 0)
    keys = [row.key for row in source.rows()]
    samples = source.read([keys[number] for number in found.read("sample_id").tolist()])
    pixels = np.stack([np.asarray(sample.image) for sample in samples])
    expected = open_dual_encoder(job.store, encoder).encode_images(pixels)
    np.testing.assert_allclose(found.read("image").astype(float), expected.astype(float), atol=1e-5)
    assert len({spec.key, image_features_spec(probe(), None, image_side(asked(tmp_path, kind="tiny"))).key}) == 2
    defaults = dual_encoder_spec(Tiny())
    assert defaults.parameters == {}


def side_spec(folder: Path) -> StageSpec:
    """Return the spec of the cosines of all images and labels."""
    words = words_spec(probe(), "labels", image_side(asked(folder)))
    return concept_side_spec(image_features_spec(probe(), None, image_side(asked(folder))), words)


def side(job: Job, folder: Path) -> FinishedStage:
    """Make the cosines of all images and labels."""
    spec = side_spec(folder)
    complete(job, WORDS, [spec.inputs["words"]])
    complete(job, IMAGE_FEATURES, [spec.inputs["images"]])
    (found,) = complete(job, CONCEPT_SIDE, [spec])
    return found


def test_cosines_are_products_of_unit_rows(job: Job, tmp_path: Path) -> None:
    found = side(job, tmp_path)
    assert found.layout.partitions == 4
    with np.load(tmp_path / FEATURES) as archive:
        expected = unit(archive["images"].astype(float)) @ unit(archive["texts"].astype(float)).T
    expected = expected[found.read("sample_id")]
    np.testing.assert_allclose(found.read("cosine").astype(float), expected, atol=1e-6)
    chunks = list(scores_of(found))
    assert [start for start, _ in chunks] == [0, 20, 40, 60]
    np.testing.assert_array_equal(np.concatenate([chunk for _, chunk in chunks]), found.read("cosine"))
    assert found.summary == {"samples": COUNT, "words": expected.shape[1]}


def test_moments_of_ranges_are_those_of_the_whole(job: Job, tmp_path: Path) -> None:
    found = side(job, tmp_path)
    merged, whole = open_side(found), ConceptMoments().update(found.read("cosine")).side()
    for name, values in vars(whole).items():
        np.testing.assert_allclose(getattr(merged, name), values, rtol=1e-9, atol=1e-12, err_msg=name)
    cosine = found.read("cosine").astype(np.float64)
    np.testing.assert_allclose(merged.mean, cosine.mean(axis=0), rtol=1e-9, atol=1e-12)


def test_a_killed_side_gives_the_same_bytes(job: Job, tmp_path: Path) -> None:
    side(job, tmp_path)
    spec = side_spec(tmp_path)
    before = content(job, spec)
    lose(tmp_path, spec, 2)
    complete(job, CONCEPT_SIDE, [spec])
    assert content(job, spec) == before


def test_vectors_of_two_lengths_are_named(job: Job, tmp_path: Path) -> None:
    words = words_stage(job, ["red"], np.ones((1, 3), np.float32), probe())
    spec = concept_side_spec(features(job, tmp_path), words)
    with pytest.raises(PartitionError, match=r"expected image and text vectors of one length, found 56 and 3"):
        complete(job, CONCEPT_SIDE, [spec])


def test_one_side_serves_all_snapshots_and_layers(probed_run: "Run") -> None:
    assert sum(spec.stage == "concept-side" for spec in probed_run.plan.stages) == 1
    sides = {spec.inputs["side"] for spec in probed_run.plan.stages if spec.stage == "clip-dissect"}
    assert len(sides) == 1
