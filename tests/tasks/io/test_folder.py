"""Tests of `tasks.io.folder`."""

from pathlib import Path

import fsspec
import numpy as np
import pytest

from tasks.io.folder import FolderSource
from tasks.io.samples import mode_of


def paths(root: Path | str) -> dict[str, str]:
    """Return both splits' folders, not in alphabetical order."""
    return {"val": f"{root}/val", "train": f"{root}/train"}


def test_rows_are_sorted_and_labels_number_the_folders(folders: Path) -> None:
    (folders / "train" / "cat" / "notes.txt").write_text("no image")
    (folders / "train" / "stray.png").write_bytes(b"not in a class folder")
    source = FolderSource(paths(folders))
    assert [(row.key, row.label) for row in source.rows()] == [
        ("train/cat/0.png", 0),
        ("train/cat/1.png", 0),
        ("train/cat/2.png", 0),
        ("train/dog/0.png", 1),
        ("train/dog/1.png", 1),
        ("val/cat/0.png", 0),
        ("val/dog/0.png", 1),
    ]
    assert source.class_names() == {0: "cat", 1: "dog"}
    first = next(iter(source.rows()))
    status = (folders / "train/cat/0.png").stat()
    assert (first.split, first.size, first.etag) == (
        "train",
        status.st_size,
        f"{status.st_size:x}-{status.st_mtime_ns:x}",
    )


def test_classes_map_folders_to_network_outputs(folders: Path) -> None:
    source = FolderSource(paths(folders), {"dog": 207, "cat": 281})
    assert {row.key: row.label for row in source.rows()}["val/dog/0.png"] == 207
    assert source.class_names() == {207: "dog", 281: "cat"}


def test_a_folder_not_in_classes_is_named(folders: Path) -> None:
    with pytest.raises(ValueError, match=r"class folder 'dog' in split 'train' .* is not in `classes`"):
        list(FolderSource(paths(folders), {"cat": 0}).rows())


def test_an_empty_class_folder_counts_as_a_class(folders: Path) -> None:
    (folders / "train" / "bird").mkdir()
    assert FolderSource(paths(folders)).class_names() == {0: "bird", 1: "cat", 2: "dog"}


def test_images_below_subfolders_belong_to_the_class(folders: Path) -> None:
    (folders / "train/cat/more").mkdir()
    (folders / "train/cat/0.png").rename(folders / "train/cat/more/0.PNG")
    source = FolderSource(paths(folders))
    assert [row.key for row in source.rows()][:3] == ["train/cat/1.png", "train/cat/2.png", "train/cat/more/0.PNG"]
    assert mode_of(source.read(["train/cat/more/0.PNG"])[0].image) == "RGB"


def test_a_remote_folder_gives_the_same_samples(folders: Path) -> None:
    system = fsspec.filesystem("memory")
    local = FolderSource(paths(folders), threads=2)
    keys = [row.key for row in local.rows()]
    system.pipe({f"/folder-test/{key}": (folders / key).read_bytes() for key in keys})
    remote = FolderSource(paths("memory://folder-test"), threads=2)
    assert [row[:4] for row in remote.rows()] == [row[:4] for row in local.rows()]
    assert remote.class_names() == local.class_names()
    for ours, theirs in zip(remote.read(keys), local.read(keys), strict=True):
        assert ours.digest == theirs.digest
        np.testing.assert_array_equal(np.asarray(ours.image), np.asarray(theirs.image))
