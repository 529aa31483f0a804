"""Sequences from archives and tables: padding, keys, labels, and files that are not sequences."""

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from configs.datasets import SequenceFile, Texts
from tasks.figures.sequences import draw_sequence
from tasks.io.samples import Vector
from tasks.io.sources import open_source

Arrays = dict[str, NDArray[Any]]  # Any: any dtype
TOKENS: Arrays = {
    "values": np.array([3, 1, 2, 5, 4, 4]),
    "offsets": np.array([0, 2, 3, 6]),
    "labels": np.array([1, 0, 1]),
}


def archive(folder: Path, name: str = "all", **changes: object) -> Path:
    """Write an archive of tokens with some arrays changed."""
    path = folder / f"{name}.npz"
    arrays: dict[str, Any] = {**TOKENS, **{key: np.asarray(value) for key, value in changes.items()}}  # Any: arrays
    np.savez(path, **arrays)
    return path


def opened(path: Path, **settings: object) -> Any:  # Any: a source
    data = {"source": "sequence-npz", "paths": {"all": str(path)}, **settings}
    return open_source(SequenceFile.model_validate(data))


def values_of(source: Any, key: str) -> NDArray[np.float32]:  # Any: a source
    (sample,) = source.read([key])
    assert isinstance(sample.image, Vector)
    return sample.image.values


def test_tokens_with_padding_at_their_end(tmp_path: Path) -> None:
    source = opened(archive(tmp_path), vocabulary=6)
    assert [(row.key, row.label) for row in source.rows()] == [("all/0", 1), ("all/1", 0), ("all/2", 1)]
    assert values_of(source, "all/0").tolist() == [[3], [1], [0]]
    assert values_of(source, "all/1").tolist() == [[2], [0], [0]]
    assert values_of(source, "all/2").tolist() == [[5], [4], [4]]
    with pytest.raises(ValueError, match=r"^sample all/3: expected it in the data set, found none"):
        source.read(["all/3"])


def test_features_with_a_number_that_says_where_a_step_is(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float64).reshape(6, 2)
    source = opened(archive(tmp_path, values=values))
    assert values_of(source, "all/0").tolist() == [[0, 1, 1], [2, 3, 1], [0, 0, 0]]
    assert values_of(source, "all/2").tolist() == [[6, 7, 1], [8, 9, 1], [10, 11, 1]]


def test_splits_are_padded_alike(tmp_path: Path) -> None:
    paths = {"train": str(archive(tmp_path, "train")), "val": str(archive(tmp_path, "val", offsets=[0, 1, 2, 6]))}
    source = open_source(SequenceFile.model_validate({"source": "sequence-npz", "paths": paths}))
    assert values_of(source, "train/0").shape == values_of(source, "val/0").shape == (4, 1)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"offsets": [0, 2, 2, 6]}, r"sequence 1: expected at least one step, found none; leave the sequence out"),
        ({"offsets": [0, 2, 3, 5]}, r"array 'offsets': expected at least two numbers that rise from 0 to 6"),
        ({"offsets": [0, 3, 2, 6]}, r"array 'offsets': expected at least two numbers that rise from 0 to 6"),
        ({"offsets": [0.0, 2.0]}, r"array 'offsets': expected integers \(n,\), found float64 \(2,\)"),
        ({"labels": [1, 0]}, r"array 'labels': expected 3 integers, one a sequence, found int64 \(2,\)"),
        ({"labels": [1, -1, 0]}, r"array 'labels': expected numbers from 0 to 9,2.*, found -1"),
        (
            {"offsets": np.array([0, 2**63 + 1, 3, 6], np.uint64)},
            r"array 'offsets': expected numbers from 0 to 9,2.*, found 9223372036854775809",
        ),
        (
            {"values": [3, 1, 6, 5, 4, 4]},
            r"step 2: expected a token from 1 to 5, as vocabulary says, found 6; 0 is pad",
        ),
        (
            {"values": [3, 0, 2, 5, 4, 4]},
            r"step 1: expected a token from 1 to 5, as vocabulary says, found 0; 0 is pad",
        ),
        (
            {"values": [0.5] * 6},
            r"array 'values': expected tokens \(n,\) of integers or features \(n, d\), found float64",
        ),
        (
            {"values": [[]] * 6},
            r"array 'values': expected tokens \(n,\) of integers or features \(n, d\), found float64 \(6, 0\)",
        ),
        (
            {"values": [[0.5, 1.0]] * 6},
            r"expected tokens \(n,\), as `vocabulary` says, found features \(6, 2\)",
        ),
    ],
)
def test_bad_archives_are_named_in_one_line(changes: dict[str, Any], text: str, tmp_path: Path) -> None:
    path = archive(tmp_path, **changes)
    with pytest.raises(ValueError, match=rf"^sequence-npz {path}: {text}") as caught:
        opened(path, vocabulary=6)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [np.nan, -np.inf, 1e300])
def test_features_beyond_float32_are_named(bad: float, tmp_path: Path) -> None:
    path = archive(tmp_path, values=np.array([[0.5, 1.0]] * 4 + [[0.5, bad], [0.5, 1.0]]))
    with pytest.raises(ValueError, match=rf"^sequence-npz {path}: step 4: expected finite float32 features"):
        opened(path)


def test_a_missing_archive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^sequence-npz: file .*none\.npz"):
        opened(tmp_path / "none.npz")


def table(folder: Path, rows: str, words: str = "good\nbad\n[UNK]\n!\n") -> dict[str, object]:
    """Write a table and a list of words; return the settings of the data set."""
    (folder / "words.txt").write_text(words)
    (folder / "texts.csv").write_text("text,label\n" + rows)
    return {"source": "texts", "paths": {"all": str(folder / "texts.csv")}, "tokenizer": str(folder / "words.txt")}


def read(settings: dict[str, object]) -> Any:  # Any: a source
    return open_source(Texts.model_validate(settings))


def test_texts_become_tokens_of_the_list(tmp_path: Path) -> None:
    settings = table(tmp_path, '"Good, BAD film!",pos\nbad,neg\n') | {"classes": {"neg": 0, "pos": 1}}
    source = read(settings)
    assert [row.label for row in source.rows()] == [1, 0]
    assert values_of(source, "all/0").ravel().tolist() == [1, 3, 2, 3, 4]  # good , bad film !
    assert values_of(source, "all/1").ravel().tolist() == [2, 0, 0, 0, 0]
    assert source.class_names() == {0: "neg", 1: "pos"}
    assert values_of(read(settings | {"longest": 2}), "all/0").ravel().tolist() == [1, 3]


@pytest.mark.parametrize(
    ("rows", "words", "text"),
    [
        ("good,1\n,0\n", "good\n", "row 3: expected at least one step, found none; leave the sequence out"),
        (
            "good film,1\n",
            "good\n",
            r"row 2: expected words of the vocabulary, found 'film'; add it, or a line \[UNK\]",
        ),
        ("good,one\n", "good\n", "row 2: expected an integer as label, found 'one'; map names by `classes`"),
        ("", "good\n", "expected rows with the columns text and label, found no rows"),
    ],
)
def test_bad_tables_are_named_in_one_line(rows: str, words: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^texts {tmp_path}/texts.csv.*{text}$"):
        read(table(tmp_path, rows, words))


def test_columns_of_a_table(tmp_path: Path) -> None:
    settings = table(tmp_path, "good,1\n")
    path = tmp_path / "texts.csv"
    path.write_text("text,label\ngood,1\n", "utf-8-sig")  # as spreadsheets write it
    assert values_of(read(settings), "all/0").tolist() == [[1]]
    for rows, more in (("text,text,label\ngood,bad,1\n", {}), ("text,label\ngood,1\n", {"text_column": "label"})):
        path.write_text(rows)
        with pytest.raises(ValueError, match=f"^texts {path}: expected one column of texts and another of labels"):
            read(settings | more)


def test_bad_lists_of_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for words, text in (
        ("", "expected a word a line, found none"),
        ("a\nA\n", "expected different words, found 'a' twice"),
    ):
        with pytest.raises(ValueError, match=f"^tokenizer {tmp_path}/words.txt: {text}$"):
            read(table(tmp_path, "a,1\n", words))
    settings = table(tmp_path, "a,1\n") | {"tokenizer": str(tmp_path / "words.json")}
    (tmp_path / "words.json").write_text("{}")
    found = builtins.__import__

    def without(name: str, *given: Any, **named: Any) -> Any:  # Any: as the import takes them
        if name == "tokenizers":
            raise ImportError(name)
        return found(name, *given, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"expected the package tokenizers for a .json file, found none; pip install"):
        read(settings)


def test_pictures_of_sequences() -> None:
    tokens = draw_sequence(np.array([[1.0], [2.0], [1.0], [0.0]]), side=4)
    assert (tokens[0, 0] == tokens[2, 0]).all()  # the first and the third token, in a square of two
    assert (tokens[0, 0] != tokens[0, 2]).any()
    assert (tokens[3, 3] == 255).all()
    features = draw_sequence(np.array([[0.0, 1.0, 1.0], [1.0, 0.5, 1.0], [0.0, 0.0, 0.0]]), side=6)
    assert features[0, 0].tolist() == [0, 0, 0]
    assert features[0, 2].tolist() == [255, 255, 255]
    assert features[0, 5].tolist() == [222, 235, 247]
