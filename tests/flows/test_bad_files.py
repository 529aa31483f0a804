"""Data files that cannot be used, at the command line: one line that names file and place, and no store."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.flows.command import Tree, Write, layerlore, on_commands, refused

pytestmark = pytest.mark.usefixtures("wide")

ROWS = "path,label\n"


def as_table(tree: Tree, text: bytes) -> Path:
    """Make the images the rows of a table, whose training split is `text`; return the images' folder."""
    images = Path(tree["data"]["pets"]["paths"]["train"]).parent
    (images / "train.csv").write_bytes(text)
    (images / "val.csv").write_text(ROWS + "".join(f"val/{c}/0.png,{i}\n" for i, c in enumerate(("cat", "dog"))))
    paths = {split: str(images / f"{split}.csv") for split in ("train", "val")}
    tree["data"]["pets"] = {"source": "csv", "paths": paths}
    return images


@pytest.mark.parametrize(
    ("command", "text", "why"),
    on_commands(
        [
            (b"path,label\rtrain/cat/0.png,0\r", "line 1: a carriage return without a line feed"),
            (b'path,label\n"train/cat/0.png,0\n', "line 2: expected a row of a table"),
            (
                b"path,label\ntrain/cat/0.png,9223372036854775808\n",
                "line 2: expected a label up to 9223372036854775807, the largest int64, found 9223372036854775808",
            ),
            (
                b"path,label\ntrain/cat/0.png,0_1\n",
                "line 2: expected an integer as label, found '0_1'; map names by `classes`",
            ),
            (b"path,label\n" + b"x" * 5000 + b".png,0\n", "line 2: file "),
            (b"path,label\ntrain/cat/0.png/x.png,0\n", "0.png/x.png lies below a file, not a folder"),
            (b"path,label\ntrain/cat/0.png,\0\n", "line 2: a NUL character"),
        ]
    ),
)
def test_a_bad_table_is_one_line(folder_tree: Tree, write: Write, command: str, text: bytes, why: str) -> None:
    as_table(folder_tree, text)
    said = refused(layerlore(command, write(folder_tree)))
    assert len(said.splitlines()) == 1
    assert said.startswith("data.pets: csv ")
    assert "train.csv" in said
    assert why in said
    assert b"x" * 5000 not in text or said.endswith("has a path that is too long")
    assert not Path(folder_tree["store"]).exists()


@pytest.mark.parametrize("source", ["npz", "csv", "image-folder", "imagenet"])
@pytest.mark.parametrize(
    ("place", "why"),
    [("n" * 300, "has a path that is too long"), ("run.yaml/a", "lies below a file"), ("x", "not exist")],
)
def test_a_path_that_leads_nowhere_is_one_line(
    folder_tree: Tree, write: Write, tmp_path: Path, source: str, place: str, why: str
) -> None:
    place = str(tmp_path / place)
    where = {"root": place} if source == "imagenet" else {"paths": {"train": place, "val": place}}
    folder_tree["data"]["pets"] = {"source": source, **where}
    said = refused(layerlore("plan", write(folder_tree)))
    assert said.startswith("data.pets: f")
    assert why in said
    assert not Path(folder_tree["store"]).exists()


def test_labels_beyond_the_outputs_get_advice_that_the_source_takes(
    folder_tree: Tree, write: Write, tmp_path: Path
) -> None:
    images, labels = np.zeros((4, 8, 8, 3), np.uint8), np.array([0, 5, 0, 5])
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    npz: Tree = {"source": "npz", "paths": {split: str(tmp_path / "a.npz") for split in ("train", "val")}}
    folder_tree["data"]["pets"] = npz
    assert "expected labels 0 to 1, as the network has 2 outputs, found 5" in (
        said := refused(layerlore("plan", write(folder_tree)))
    )
    assert said.endswith("map labels by `classes` or change the network")
    npz["classes"] = {0: 1, 5: 0}
    assert layerlore("plan", write(folder_tree)).exit_code == 0
    folder_tree["data"]["pets"] = {"source": "sklearn-digits"}
    folder_tree["networks"]["net"]["preprocessing"] = {"convert": True}
    assert (said := refused(layerlore("plan", write(folder_tree)))).endswith("; change the network")
    assert "classes" not in said


@pytest.mark.parametrize("command", ["plan", "run"])
def test_channels_first_are_one_line_with_the_transpose(
    folder_tree: Tree, write: Write, tmp_path: Path, command: str
) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 3, 8, 8), np.uint8), labels=np.array([0, 1, 0, 1]))
    folder_tree["data"]["pets"] = {"source": "npz", "paths": dict.fromkeys(("train", "val"), str(tmp_path / "a.npz"))}
    said = refused(layerlore(command, write(folder_tree)))
    assert said.endswith("channels first; store it as images.transpose(0, 2, 3, 1), which is (N, H, W, C)")
    assert not Path(folder_tree["store"]).exists()


def test_labels_beyond_int64_are_one_line(folder_tree: Tree, write: Write, tmp_path: Path) -> None:
    labels = np.array([0, 2**63, 0, 1], np.uint64)
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 8, 8, 3), np.uint8), labels=labels)
    folder_tree["data"]["pets"] = {"source": "npz", "paths": dict.fromkeys(("train", "val"), str(tmp_path / "a.npz"))}
    said = refused(layerlore("plan", write(folder_tree)))
    assert (
        "sample train/1: expected a label up to 9223372036854775807, the largest int64, found 9223372036854775808"
        in said
    )


def test_what_a_folder_leaves_out_is_said(folder_tree: Tree, write: Write, add_image: Callable[..., None]) -> None:
    train = Path(folder_tree["data"]["pets"]["paths"]["train"])
    add_image(train / "cat" / "9.gif", 0, "P")
    (train / "cat" / "notes.txt").write_text("no image")
    result = layerlore("plan", write(folder_tree))
    assert result.exit_code == 0, result.output
    line = "data.pets: left out, not images in class folders: 1 of split 'train' (cat/notes.txt)"
    assert result.stdout.splitlines().count(line) == 1
    (train / "cat" / "notes.txt").unlink()
    assert "left out" not in layerlore("plan", write(folder_tree)).stdout


def test_a_name_that_is_not_utf8_is_one_line(folder_tree: Tree, write: Write) -> None:
    train = os.fsencode(folder_tree["data"]["pets"]["paths"]["train"])
    try:
        os.link(train + b"/cat/0.png", train + b"/cat/caf\xe9.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    said = refused(layerlore("plan", write(folder_tree)))
    assert said.startswith("data.pets: folder ")
    assert "expected UTF-8 names, found" in said
    assert not Path(folder_tree["store"]).exists()


def test_a_class_without_images_says_what_was_left_out(folder_tree: Tree, write: Write) -> None:
    val = Path(folder_tree["data"]["pets"]["paths"]["val"])
    for image in (val / "cat").iterdir():
        image.write_text("no image")
        image.rename(image.with_suffix(".xyz"))
    said = refused(layerlore("plan", write(folder_tree)))
    assert "expected samples in split 'val', found none" in said
    assert "3 of split 'val' (cat/0.xyz, cat/1.xyz, cat/2.xyz)" in said
