"""Tests of `tasks.io.words`."""

from pathlib import Path

import numpy as np
import pytest

from tasks.io.annotations import vocabulary_of
from tasks.io.mini_broden import MiniBrodenSource
from tasks.io.words import WordList, read_words


def test_blanks_and_duplicates_go_and_categories_stay() -> None:
    entries = [
        ("Water ", ["object"]),
        ("", ["part"]),
        ("tree  house", []),
        ("water", ["material", "object"]),
        (" ", []),
    ]
    words = WordList.of(entries)
    assert words == WordList(("Water", "tree house"), (("object", "material"), ("other",)))
    np.testing.assert_array_equal(words.positions(["TREE house", "water", "sea"]), [1, 0, -1])


def test_a_file_has_a_word_a_line(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes("\ufeffred\tcolor\r\n\r\nsmall dog\nÉtoile\tobject; part\nRED\tmaterial\n".encode())
    assert read_words(str(path)) == WordList(
        ("red", "small dog", "Étoile"), (("color", "material"), ("other",), ("object", "part"))
    )


def test_the_words_of_a_probing_set_have_no_suffix() -> None:
    labels = [("red-c", "color"), ("street-s", "scene"), ("street", "object"), ("t-s", "object"), ("sky", "object")]
    vocabulary = vocabulary_of(labels, ["object", "scene", "color"])
    words = WordList.of_vocabulary(vocabulary)
    assert words.words == ("red", "street", "t-s", "sky")
    assert words.categories == (("color",), ("scene", "object"), ("object",), ("object",))
    np.testing.assert_array_equal(words.label_positions(vocabulary), [-1, 0, 1, 1, 2, 3])
    np.testing.assert_array_equal(WordList.of([("sky", ())]).label_positions(vocabulary), [-1, -1, -1, -1, -1, 0])


def test_every_label_of_mini_broden_is_a_word() -> None:
    vocabulary = MiniBrodenSource(1, 32, 0).vocabulary()
    np.testing.assert_array_equal(WordList.of_vocabulary(vocabulary).label_positions(vocabulary), np.arange(57) - 1)


def test_class_names_are_words_in_the_order_of_labels() -> None:
    assert WordList.of_classes({2: "great_white shark", 0: "cat", 1: "Cat"}).words == ("cat", "great white shark")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"words: file .*w.txt does not exist"),
        (b" \n\n", r"words: .*w.txt: expected a word on each line, found none"),
        (b"\xff\xfea", r"words: .*w.txt: expected UTF-8 text, found other bytes"),
        (b"cat\nd\0og\n", r"words: .*w.txt, line 2: expected text, found character '\\x00'"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "w.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_words(str(path))
