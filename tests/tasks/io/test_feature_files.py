"""Tests of `tasks.io.feature_files`."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import rankdata

from tasks.io.annotations import coverage
from tasks.io.broden import BrodenSource
from tasks.io.feature_files import read_features
from tasks.io.words import WordList

IMAGES = np.array([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]])
TEXTS = np.array([[1.0, 0.0], [0.0, 5.0]])


def saved(folder: Path, **arrays: Any) -> str:
    """Write a file of features; return its path."""
    np.savez(folder / "f.npz", **{"images": IMAGES, "texts": TEXTS, "words": np.array(["Sky", "red  car"]), **arrays})
    return str(folder / "f.npz")


def test_rows_are_found_by_id_and_word(tmp_path: Path) -> None:
    path = saved(tmp_path, ids=np.array([40, 7, 9], dtype=np.uint8), images=IMAGES.astype(np.float16))
    features = read_features(path, ids="ids", words="words")
    np.testing.assert_allclose(features.images(np.array([9, 40])), [[1.0, 0.0], [0.6, 0.8]], atol=1e-7)
    np.testing.assert_allclose(features.texts(["Red Car", "sky"]), [[0, 1], [1, 0]])
    features.check_samples(1000)  # ids say which samples the rows are
    with pytest.raises(
        ValueError, match=r"features .*f.npz: expected features of each sample, found none of sample id 8"
    ):
        features.images(np.array([7, 8, 5]))
    with pytest.raises(ValueError, match=r"each word, found none of 'a', 'b', 'c' and 1 more"):
        features.texts(["a", "sky", "b", "c", "d"])


def test_without_ids_row_i_is_sample_i(tmp_path: Path) -> None:
    features = read_features(saved(tmp_path), words=["x", "X"])
    np.testing.assert_allclose(features.images(np.array([1])), [[0, 1]])
    np.testing.assert_allclose(features.texts(["x"]), [[1, 0]])  # the first row of equal words
    features.check_samples(3)
    with pytest.raises(ValueError, match="expected 4 image rows, one for each sample of the data set, found 3"):
        features.check_samples(4)


@pytest.mark.parametrize(
    ("arrays", "settings", "message"),
    [
        ({}, {"images": "none"}, r"f.npz: expected an array 'none', found images, texts, words"),
        ({}, {"words": ["x"]}, r"words of the rows of 'texts': expected 2 texts, found <U1 \(1,\)"),
        ({"words": np.arange(2)}, {}, r"array 'words': expected 2 texts, found int64 \(2,\)"),
        ({"texts": np.ones((2, 3))}, {}, r"image and text features of one length, found 2 and 3"),
        ({"texts": np.array([[1.0, 0.0], [0.0, 0.0]])}, {}, r"array 'texts': .*not zero, found zeros in row 1"),
        ({"images": np.array([[1.0, np.nan]])}, {}, r"array 'images': expected finite numbers, found others in row 0"),
        ({"images": np.array([[1.0, 0.0], [np.inf, 1.0]])}, {}, r"expected finite numbers, found others in row 1"),
        ({"images": np.ones(4)}, {}, r"array 'images': expected floats \(rows, features\), found float64 \(4,\)"),
        ({"images": np.ones((3, 2), dtype=np.int64)}, {}, r"array 'images': expected floats .* found int64 \(3, 2\)"),
        ({"ids": np.arange(2)}, {"ids": "ids"}, r"array 'ids': expected 3 integers, .* found int64 \(2,\)"),
        ({"ids": np.ones(3)}, {"ids": "ids"}, r"array 'ids': expected 3 integers, .* found float64 \(3,\)"),
        ({"ids": np.array([4, 5, 4])}, {"ids": "ids"}, r"array 'ids': expected each sample id once, found 4 twice"),
        ({"words": np.array(["a", None])}, {}, r"expected an npz file of numbers and texts, found an error"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, arrays: Any, settings: Any, message: str) -> None:
    path = saved(tmp_path, **arrays)
    with pytest.raises(ValueError, match=message) as caught:
        read_features(path, **{"words": "words", **settings})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"no archive", b"PK\x03\x04 damaged"])
def test_a_file_that_is_not_an_archive_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "f.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"features .*f.npz: (the file does not exist|expected an npz file)"):
        read_features(str(path), words="words")
    np.save(tmp_path / "single.npy", IMAGES)
    with pytest.raises(ValueError, match="it is not an archive"):
        read_features(str(tmp_path / "single.npy"), words="words")


@pytest.mark.slow
def test_the_real_features_separate_present_from_absent_labels(data_dir: Path, tmp_path: Path) -> None:
    for name in ("images", "labels"):
        with zipfile.ZipFile(data_dir / "broden_real" / f"{name}.zip") as archive:
            archive.extractall(tmp_path)
    source = BrodenSource(str(tmp_path))
    keys, vocabulary = [row.key for row in source.rows()], source.vocabulary()
    present = np.concatenate(
        [coverage(source.masks(keys[i : i + 300]), len(vocabulary.names)) > 0 for i in range(0, len(keys), 300)]
    )
    words = WordList.of_vocabulary(vocabulary).words  # each label of label.csv once, as the rows of `probe_text`
    rows = tuple(dict.fromkeys(vocabulary.names[1:]))  # names with suffixes are different
    features = read_features(
        str(data_dir / "imagetext" / "conse.npz"), images="probe_image", texts="probe_text", words=bare_rows(rows)
    )
    features.check_samples(len(keys))
    cosine = features.images(np.arange(len(keys))) @ features.texts(words).T
    found: dict[str, list[float]] = {name: [] for name in vocabulary.categories}
    for label, word in enumerate(WordList.of_vocabulary(vocabulary).label_positions(vocabulary)[1:], 1):
        ranks, there = rankdata(cosine[:, word]), present[:, label]
        n, m = int(there.sum()), int((~there).sum())
        found[vocabulary.categories[vocabulary.category_of[label]]].append(
            (ranks[there].sum() - n * (n + 1) / 2) / n / m
        )
    areas = [np.mean(found[name]) for name in ("part", "material", "texture")]
    np.testing.assert_allclose(areas, [0.75, 0.78, 0.70], atol=0.006)  # as the data's README measures
    assert np.mean(found["object"]) > 0.75
    assert np.mean(found["scene"]) > 0.8


def bare_rows(names: Sequence[str]) -> list[str]:
    """Return names without Broden's suffixes."""
    return [name.removesuffix("-c").removesuffix("-s") for name in names]
