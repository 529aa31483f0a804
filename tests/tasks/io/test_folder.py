"""Tests of `tasks.io.folder`."""

import os
from pathlib import Path
from unicodedata import normalize

import fsspec
import numpy as np
import pytest
from PIL import Image, features

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
    with pytest.raises(ValueError, match=r"split 'train' .*: expected the class folders of `classes`, found 'dog'"):
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


def image_as(folder: Path, name: str, kind: str) -> Path:
    """Write a picture in the format `kind` under a name of any ending."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    with (folder / name).open("wb") as stream:
        Image.fromarray(pixels).save(stream, kind)
    return folder / name


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *[("x.jfif", "JPEG"), ("x.JPE", "JPEG"), ("x.gif", "GIF"), ("x.WebP", "WEBP"), ("x.JPEG", "JPEG")],
        *[("x.jp2", "JPEG2000"), ("x.tga", "TGA"), ("x", "PNG"), ("x.img", "JPEG"), ("x.jpg_large", "JPEG")],
        pytest.param("x.avif", "AVIF", marks=pytest.mark.skipif(not features.check("avif"), reason="Pillow has none")),
    ],
)
def test_whatever_pillow_reads_is_taken(folders: Path, name: str, kind: str, remote: bool) -> None:
    file = image_as(folders / "train" / "cat", name, kind)
    root: Path | str = folders
    if remote:
        root = f"memory://endings-{kind}-{name}"
        files = {f"/endings-{kind}-{name}/{p.relative_to(folders)}": p.read_bytes() for p in folders.rglob("*.*")}
        fsspec.filesystem("memory").pipe(files | {f"/endings-{kind}-{name}/train/cat/{name}": file.read_bytes()})
    source = FolderSource(paths(root))
    key = f"train/cat/{name}"
    assert [row.key for row in source.rows()].count(key) == 1
    assert len(list(source.rows())) == 8
    assert source.left_out() == ""
    assert np.asarray(source.read([key])[0].image).shape[:2] == (6, 5)


def test_files_that_are_not_images_are_counted_and_named(folders: Path) -> None:
    for name in ("cat/notes.txt", "cat/Thumbs.db", "dog/list", "cat/empty", "dog/clip.mpg", "dog/page.pdf"):
        (folders / "train" / name).write_bytes(b"" if name == "cat/empty" else b"BM is no picture")
    (folders / "val" / "stray.png").write_bytes((folders / "val/cat/0.png").read_bytes())
    source = FolderSource(paths(folders))
    assert len(list(source.rows())) == 7
    assert source.left_out() == (
        "left out, not images in class folders: 6 of split 'train' (cat/Thumbs.db, cat/empty, cat/notes.txt, ...); "
        "1 of split 'val' (stray.png)"
    )


def test_a_broken_image_of_a_known_ending_is_taken_and_named_when_it_is_read(folders: Path) -> None:
    (folders / "train/cat/9.gif").write_bytes(b"nothing")
    source = FolderSource(paths(folders))
    assert "train/cat/9.gif" in [row.key for row in source.rows()]
    with pytest.raises(ValueError, match=r"sample train/cat/9.gif: corrupted or not an image"):
        source.read(["train/cat/9.gif"])


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize("forms", [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
@pytest.mark.parametrize("written", [None, COMPOSED, DECOMPOSED])
def test_composed_and_decomposed_letters_are_one_class(
    folders: Path, forms: tuple[str, str], written: str | None
) -> None:
    for split, form in zip(("train", "val"), forms, strict=True):
        (folders / split / "cat").rename(folders / split / form)
    classes = None if written is None else {written: 4, "dog": 9}
    source = FolderSource(paths(folders), classes)
    cafe, dog = (0, 1) if classes is None else (4, 9)
    found = {(row.key.partition("/")[0], row.label) for row in source.rows()}
    assert found == {("train", cafe), ("train", dog), ("val", cafe), ("val", dog)}
    assert {k: normalize("NFC", v) for k, v in source.class_names().items()} == {cafe: COMPOSED, dog: "dog"}
    keys = [row.key for row in source.rows()]
    assert len(source.read(keys)) == 7  # each file is found under its own form


def test_both_forms_in_one_split_are_one_class_and_one_form_keeps_its_name_and_place(folders: Path) -> None:
    (folders / "train" / "cat").rename(folders / "train" / COMPOSED)
    (folders / "train" / "dog").rename(folders / "train" / DECOMPOSED)
    assert {row.label for row in FolderSource({"train": str(folders / "train")}).rows()} == {0}
    (folders / "train" / COMPOSED).rename(folders / "train" / "zebra")
    assert FolderSource({"train": str(folders / "train")}).class_names() == {0: DECOMPOSED, 1: "zebra"}


@pytest.mark.parametrize("place", [b"cat/caf\xe9.png", b"caf\xe9/1.png", b"cat/more/caf\xe9/1.png"])
def test_a_name_that_is_not_utf8_is_named(folders: Path, place: bytes) -> None:
    target = os.path.join(os.fsencode(folders / "train"), place)
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.link(folders / "train/cat/0.png", target)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(
        ValueError, match=r"folder .*: expected UTF-8 names, found b'caf\\xe9(\.png)?'; rename it"
    ) as caught:
        list(FolderSource(paths(folders)).rows())
    str(caught.value).encode()  # it can be printed


def test_links_to_nothing_and_what_is_not_a_file_are_named(folders: Path) -> None:
    (folders / "train/cat/9.png").symlink_to(folders / "none.png")
    with pytest.raises(ValueError, match=r"folder .*train: 'cat/9.png' does not exist"):
        list(FolderSource(paths(folders)).rows())
    (folders / "train/cat/9.png").unlink()
    os.mkfifo(folders / "train/cat/9.png")
    with pytest.raises(ValueError, match=r"folder .*cat: expected files and folders, found '9.png'; remove it"):
        list(FolderSource(paths(folders)).rows())
