"""Word lists as stages: labels, files, class names, anchors; their categories and vectors; unknown words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.concepts import Concepts
from configs.schema import MiniBroden, Npz, SklearnDigits
from storage.specs import StageSpec
from storage.stages import open_finished
from tasks.cluster.parallel import PartitionError
from tasks.engine.life import Job, complete
from tasks.io import model_files
from tasks.io.annotations import coverage
from tasks.io.mini_broden import MiniBrodenSource
from tasks.steps.common.manifest import MANIFEST, manifest_spec
from tasks.steps.common.survey import PlanSurvey
from tasks.steps.concepts import text_side as text_side_module
from tasks.steps.concepts.text_side import TextSide, image_side, text_side
from tasks.steps.concepts.words import WORDS, Words, count_words, open_words, word_list, words_spec
from tests.probed import COUNT, FEATURES, SIZE, save_features
from tests.tasks.engine.two_stages import job_at


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job in this process, next to a file of features."""
    save_features(tmp_path / FEATURES)
    return job_at(tmp_path / "store")


def model(folder: Path, **settings: Any) -> TextSide:  # Any: of the section
    """Return the features of a file as the image-text model."""
    path = str(folder / FEATURES)
    image_text = {"kind": "features", "path": path, "words": "words"}
    asked = {"networks": ["net"], "layers": ["a"], "probe": {"data": "probe"}, "image_text": image_text, **settings}
    return text_side(Concepts.model_validate(asked))


def manifest_of(job: Job) -> StageSpec:
    """Make the manifest of the probing set."""
    spec = manifest_spec("probe", MiniBroden(source="mini-broden", count=COUNT, size=SIZE))
    complete(job, MANIFEST, [spec])
    return spec


def made(job: Job, spec: StageSpec) -> Words:
    """Make a word list."""
    complete(job, WORDS, [spec])
    return open_words(job.store, spec)


def test_labels_are_the_words_of_the_probing_set_with_their_vectors(job: Job, tmp_path: Path) -> None:
    manifest = manifest_of(job)
    spec = words_spec(manifest, "labels", model(tmp_path))
    words = made(job, spec)
    with np.load(tmp_path / FEATURES) as archive:
        names, vectors = archive["words"].tolist(), archive["texts"]
    assert words.names == names == list(dict.fromkeys(names))
    expected = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(words.text, expected, atol=1e-6)
    assert open_finished(job.store, spec).summary == {"words": len(names)}
    assert count_words(spec, PlanSurvey(job.store)) == len(names)


def test_a_label_of_several_categories_has_that_which_covers_most(job: Job, tmp_path: Path) -> None:
    words = made(job, words_spec(manifest_of(job), "labels", model(tmp_path)))
    source = MiniBrodenSource(COUNT, SIZE, 0)
    vocabulary = source.vocabulary()
    covered = coverage(source.masks([row.key for row in source.rows()]), len(vocabulary.names)).sum(axis=0)
    for word, category, categories in words.table[["word", "category", "categories"]].itertuples(index=False):
        numbers = [number for number, name in enumerate(vocabulary.names) if name == word]
        owners = [vocabulary.categories[vocabulary.category_of[number]] for number in numbers]
        assert sorted(categories) == sorted(owners), word
        assert category == owners[int(np.argmax([covered[number] for number in numbers]))], word


def test_a_text_file_has_words_without_blanks_and_duplicates_and_with_categories(job: Job, tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("red\tcolor\n\n  \nStriped\ttexture;pattern\n RED \tpaint\nblue\n", encoding="utf-8")
    words = made(job, words_spec(manifest_of(job), str(path), model(tmp_path)))
    assert words.names == ["red", "Striped", "blue"]
    assert words.categories == ["color", "texture", "other"]
    assert [list(found) for found in words.table["categories"]] == [
        ["color", "paint"],
        ["texture", "pattern"],
        ["other"],
    ]
    with np.load(tmp_path / FEATURES) as archive:
        rows = [archive["words"].tolist().index(word) for word in ("red", "striped", "blue")]
        expected = archive["texts"][rows]
    np.testing.assert_allclose(words.text, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)


def test_the_content_of_a_file_and_the_model_are_in_the_key(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, path, other = manifest_of(job), tmp_path / "a.txt", tmp_path / "b.txt"
    path.write_text("red\n")
    other.write_text("red\n")
    first = words_spec(manifest, str(path), model(tmp_path)).key
    assert words_spec(manifest, str(other), model(tmp_path)).key == first
    path.write_text("red\nsky\n")
    assert words_spec(manifest, str(path), model(tmp_path)).key != first
    monkeypatch.setattr(text_side_module, "minilm_folder", lambda: Path())
    assert words_spec(manifest, str(other), model(tmp_path, text="minilm")).key != first
    with np.load(tmp_path / FEATURES) as archive:
        arrays = dict(archive)
    np.savez(tmp_path / FEATURES, **{**arrays, "texts": arrays["texts"] * 2})
    assert words_spec(manifest, str(other), model(tmp_path)).key != first


def test_anchors_are_words_of_their_own(job: Job, tmp_path: Path) -> None:
    manifest = manifest_of(job)
    spec = words_spec(manifest, ("striped", "red"), model(tmp_path))
    assert made(job, spec).names == ["striped", "red"]
    assert spec.key != words_spec(manifest, ("red", "striped"), model(tmp_path)).key


def test_class_names_are_words_where_there_are_no_label_maps(job: Job, tmp_path: Path) -> None:
    named = SklearnDigits.model_validate(
        {"source": "sklearn-digits", "class_names": ["red", "blue", "red sky", *"defghij"]}
    )
    found = word_list(words_spec(manifest_spec("digits", named), "labels", model(tmp_path)))
    assert found.words[:3] == ("red", "blue", "red sky")
    assert set(found.categories) == {("other",)}


def test_a_set_without_class_names_has_no_labels(job: Job, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", images=np.zeros((2, 8, 8), np.uint8), labels=np.arange(2))
    data = Npz.model_validate({"source": "npz", "paths": {"all": str(tmp_path / "data.npz")}})
    spec = words_spec(manifest_spec("pets", data), "labels", model(tmp_path))
    with pytest.raises(ValueError, match=r"^data\.pets\.class_names: expected names for `concepts\.words: \[labels\]`"):
        count_words(spec, PlanSurvey(None))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", r"words: .*expected a word on each line, found none; add words$"),
        (b"red\xff\n", r"words: .*expected UTF-8 text, found other bytes; save it as UTF-8$"),
        (b"red\nsk\x07y\n", r"words: .*line 2: expected text, found character"),
    ],
)
def test_a_bad_file_of_words_is_named(job: Job, tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes(content)
    spec = words_spec(manifest_of(job), str(path), model(tmp_path))
    with pytest.raises(ValueError, match=f"^concepts.words: {text}") as caught:
        WORDS.size(spec, PlanSurvey(job.store))
    assert len(str(caught.value).splitlines()) == 1


def test_an_absent_file_of_words_is_named(job: Job, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^concepts\.words: .*absent\.txt"):
        words_spec(manifest_of(job), str(tmp_path / "absent.txt"), model(tmp_path))


def test_unknown_words_are_named_at_plan_time_and_in_the_run(job: Job, tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("red\nunheard\nnever seen\n")
    spec = words_spec(manifest_of(job), str(path), model(tmp_path))
    expected = r"concepts\.words: .*expected features of each word, found none of 'unheard', 'never seen'"
    with pytest.raises(ValueError, match=f"^{expected}"):
        WORDS.size(spec, PlanSurvey(job.store))
    with pytest.raises(PartitionError, match=expected):
        complete(job, WORDS, [spec])


@pytest.mark.parametrize(
    ("anchors", "text"),
    [
        (("red", "unheard"), r"concepts\.anchors: .*expected features of each word, found none of 'unheard'"),
        ((), r"concepts\.anchors: expected a word, found none; add words, or leave `anchors` out for all words"),
        ((" ", ""), r"concepts\.anchors: expected a word, found none"),
    ],
)
def test_bad_anchors_are_named(job: Job, tmp_path: Path, anchors: tuple[str, ...], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text}"):
        WORDS.size(words_spec(manifest_of(job), anchors, model(tmp_path)), PlanSurvey(job.store))


def test_the_tiny_model_knows_the_words_of_mini_broden_only(job: Job, tmp_path: Path) -> None:
    tiny = model(tmp_path, image_text={"kind": "tiny"})
    manifest = manifest_of(job)
    WORDS.size(words_spec(manifest, "labels", tiny), PlanSurvey(job.store))
    with pytest.raises(
        ValueError, match=r"^concepts\.anchors: dual encoder: expected words of mini-broden, found 'car"
    ):
        WORDS.size(words_spec(manifest, ("red", "carburettor"), tiny), PlanSurvey(job.store))


def test_rows_without_words_are_the_labels_of_the_probing_set(job: Job, tmp_path: Path) -> None:
    image_text = {"kind": "features", "path": str(tmp_path / FEATURES)}
    spec = words_spec(manifest_of(job), "labels", model(tmp_path, image_text=image_text))
    whole = made(job, words_spec(manifest_of(job), "labels", model(tmp_path)))
    np.testing.assert_array_equal(made(job, spec).text, whole.text)


def test_the_text_side_is_the_models_own_unless_another_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_side_module, "minilm_folder", lambda: Path())
    base = {"networks": ["net"], "layers": ["a"], "probe": {"data": "probe"}}
    own = Concepts.model_validate(base)
    assert text_side(own) == image_side(own)
    assert text_side(own).inputs["encoder"].stage == "dual-encoder"
    minilm = Concepts.model_validate({**base, "text": "minilm"})
    assert text_side(minilm).parameters == {"kind": "minilm"}
    assert text_side(minilm).inputs == {}
    assert image_side(minilm) == image_side(own)


def test_a_missing_package_of_the_text_encoder_is_named_at_plan_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_files, "find_spec", lambda name: None)
    asked = {"networks": ["net"], "layers": ["a"], "probe": {"data": "probe"}, "text": "minilm"}
    with pytest.raises(ValueError, match=r"^concepts\.text: text encoder minilm: expected package .*extra `text`$"):
        text_side(Concepts.model_validate(asked))
