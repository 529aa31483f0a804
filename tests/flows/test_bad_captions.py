"""Bad settings and files of detector milan: one line that names the key, code 2, and nothing is written."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.flows.command import Tree, Write, layerlore, on_commands
from tests.flows.test_bad_concepts import check, with_value
from tests.tasks.io.test_regions import files, png, write_folder

MILAN, CAPTIONER = "concepts.detectors.milan", "concepts.captioner"
FILES = {"kind": "files", "path": "regions", "origin": "photo"}
BAD: list[tuple[str, object, str]] = [
    (MILAN, {"beams": 3}, f"{MILAN}.beams: unknown parameter; known: beam, lam, length, temperature"),
    (MILAN, {"beam": 4}, f"{MILAN}.beam: expected a whole number from 5, found 4"),
    (MILAN, {"lam": -0.1}, f"{MILAN}.lam: expected a number from 0, found -0.1"),
    (MILAN, {"length": 2.5}, f"{MILAN}.length: expected a whole number from 1, found 2.5"),
    (f"{CAPTIONER}.encoder", "absent", f"{CAPTIONER}.encoder: "),
    (f"{CAPTIONER}.layers", ["2", "absent"], f"{CAPTIONER}.layers: networks.small: layer 'absent': expected a module"),
    (f"{CAPTIONER}.layers", ["2", "2"], "found the same one twice"),
    (f"{CAPTIONER}.held_out", 0.5, f"{CAPTIONER}.held_out: input should be less than 0.5"),
    (f"{CAPTIONER}.weights", {"path": "absent.pth"}, f"{CAPTIONER}.weights: file absent.pth does not exist"),
    (f"{CAPTIONER}.captions", {**FILES, "path": "absent.zip"}, f"{CAPTIONER}.captions: file absent.zip does not exist"),
    (f"{CAPTIONER}.captions", FILES, "concepts.text: expected a text encoder that reads the captions of detector mil"),
]


@pytest.fixture
def tree(probed_tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A config that asks for captions, in a folder with regions."""
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "regions", files())
    section = {name: value for name, value in probed_tree["concepts"].items() if name != "track"}
    captioner = {"encoder": "small", "layers": ["2", "8"]}
    asked = {"detectors": {"milan": {}}, "captioner": captioner, "image_text": {"kind": "tiny", "steps": 2}}
    return {**copy.deepcopy(probed_tree), "concepts": {**section, **asked, "layers": ["2"]}}


@pytest.mark.parametrize(("command", "key", "value", "expected"), on_commands(BAD, step=9))
def test_a_bad_setting_is_one_line(
    tree: Tree, write: Write, command: str, key: str, value: object, expected: str
) -> None:
    check(layerlore(command, write(with_value(tree, key, value))), expected, tree["store"])


def test_words_alone_cannot_read_captions(tree: Tree, write: Write, tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", images=np.eye(3), texts=np.eye(3))
    changed = with_value(tree, "concepts.image_text", {"kind": "features", "path": "f.npz"})
    expected = (
        "concepts.text: expected a text encoder that reads the captions of detector milan, found one of single wo"
    )
    check(layerlore("plan", write(changed)), expected, tree["store"])


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (
            {"regions.csv": b"image,mask,text,photo\na.png,m.png,--,p\n"},
            "regions.csv, row 2: expected words as text, found",
        ),
        (
            {"m.png": png(np.zeros((8, 10), np.uint8))},
            "row 2: expected a region, found mask m.png empty; remove the row",
        ),
        ({"regions.csv": b"image,mask,text,photo\nz.png,m.png,ball,p\n"}, "regions: file z.png does not exist"),
        ({}, "regions: expected at least 3 origins to train, stop and test, found 2"),
    ],
)
def test_bad_captions_are_one_line(
    tree: Tree,
    write: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, bytes],
    expected: str,
) -> None:
    monkeypatch.setattr("tasks.steps.concepts.plan.check_describes", lambda _: None)  # as with text: minilm
    write_folder(tmp_path / "regions", changed)
    tree["concepts"]["captioner"]["captions"] = FILES
    check(layerlore("plan", write(tree)), f"{CAPTIONER}.captions: regions", tree["store"])
    check(layerlore("plan", write(tree)), expected, tree["store"])


@pytest.mark.parametrize(
    ("content", "words", "expected"),
    [
        (
            {"a": torch.zeros(1)},
            "ball\nred\n",
            f"{CAPTIONER}.weights: captioner: expected 28 tensors, found 26 of them mis",
        ),
        (
            {"a": torch.zeros(1)},
            None,
            f"{CAPTIONER}.weights: captioner: file milan.pth: expected words, found none; give",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_one_line(
    tree: Tree, write: Write, tmp_path: Path, content: object, words: str | None, expected: str
) -> None:
    torch.save(content, tmp_path / "milan.pth")
    weights = {"path": "milan.pth"}
    if words is not None:
        (tmp_path / "words.txt").write_text(words)
        weights["words"] = "words.txt"
    tree["concepts"]["captioner"]["weights"] = weights
    check(layerlore("plan", write(tree)), expected, tree["store"])
