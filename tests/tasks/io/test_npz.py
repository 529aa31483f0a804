"""Tests of `tasks.io.npz`."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.schema import Npz
from tasks.io.npz import NpzSource, read_member
from tasks.io.samples import array_digest

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
LABELS = np.array([2, 0, 1, 2, 0, 1], dtype=np.int16)


def source(paths: dict[str, Any], **names: Any) -> NpzSource:
    """Open archives by split."""
    return NpzSource(Npz.model_validate({"source": "npz", "paths": paths, **names}))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_random_access_equals_the_arrays(tmp_path: Path, save: Any) -> None:
    save(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    opened = source({"train": str(tmp_path / "a.npz")})
    rows = list(opened.rows())
    assert [row.label for row in rows] == LABELS.tolist()
    assert rows[3] == ("train/3", 2, "train", 60, "")
    for sample, i in zip(opened.read(["train/5", "train/0"]), [5, 0], strict=True):
        np.testing.assert_array_equal(np.asarray(sample.image), IMAGES[i])
        assert sample.digest == array_digest(IMAGES[i])
    assert opened.class_names() == {}


def test_stored_members_are_mapped_and_compressed_ones_read(tmp_path: Path) -> None:
    grey = np.asfortranarray(IMAGES[..., 0])
    np.savez(tmp_path / "a.npz", images=grey)
    np.savez_compressed(tmp_path / "b.npz", images=grey)
    mapped, read = (read_member(str(tmp_path / name), "images") for name in ("a.npz", "b.npz"))
    assert isinstance(mapped, np.memmap)
    assert not isinstance(read, np.memmap)
    np.testing.assert_array_equal(mapped, grey)
    np.testing.assert_array_equal(read, grey)


def test_numbers_run_on_through_the_archives_of_a_split_and_splits_are_sorted(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=IMAGES[:2], y=LABELS[:2])
    np.savez(tmp_path / "b.npz", x=IMAGES[2:], y=LABELS[2:])
    both = [str(tmp_path / "a.npz"), str(tmp_path / "b.npz")]
    opened = source({"val": both[0], "train": both}, images="x", labels="y")
    assert [row.key for row in opened.rows()] == [f"train/{i}" for i in range(6)] + ["val/0", "val/1"]
    np.testing.assert_array_equal(np.asarray(opened.read(["train/4"])[0].image), IMAGES[4])
    with pytest.raises(ValueError, match="sample train/6: expected it in split 'train', found none"):
        opened.read(["train/6"])


def test_the_name_of_a_split_stands_in_the_names_of_arrays_and_labels_may_be_a_column(tmp_path: Path) -> None:
    """MedMNIST's archives hold all splits, with labels (N, 1)."""
    path = str(tmp_path / "all.npz")
    np.savez(path, train_x=IMAGES[:4], train_y=LABELS[:4, None], test_x=IMAGES[4:], test_y=LABELS[4:, None])
    opened = source({"train": path, "test": path}, images="{split}_x", labels="{split}_y")
    found = {row.key: row.label for row in opened.rows()}
    assert found == {
        **{f"test/{i}": int(label) for i, label in enumerate(LABELS[4:])},
        **{f"train/{i}": int(label) for i, label in enumerate(LABELS[:4])},
    }
    for key, image in (("train/1", IMAGES[1]), ("test/1", IMAGES[5])):
        np.testing.assert_array_equal(np.asarray(opened.read([key])[0].image), image)
    absent = source({"val": path}, images="{split}_x", labels="{split}_y")
    with pytest.raises(ValueError, match="expected an array 'val_x', found train_x, train_y, test_x, test_y"):
        list(absent.rows())


def test_a_changed_archive_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, images=IMAGES, labels=LABELS)
    opened = source({"train": str(path)})
    assert len(list(opened.rows())) == 6
    np.savez(path, images=IMAGES[:2], labels=LABELS[:2])
    assert len(list(opened.rows())) == 2


def test_an_empty_archive_has_no_rows(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", images=IMAGES[:0], labels=LABELS[:0])
    assert list(source({"train": str(tmp_path / "a.npz")}).rows()) == []


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": IMAGES}, "expected an array 'labels', found images"),
        (
            {"images": IMAGES / 255, "labels": LABELS},
            r"'images': expected uint8 \(N, H, W\) .* found float64 \(6, 4, 5, 3\)",
        ),
        ({"images": IMAGES[:, 0, 0], "labels": LABELS}, r"'images': expected uint8 .* found uint8 \(6, 3\)"),
        ({"images": IMAGES, "labels": LABELS / 2}, r"'labels': expected integers \(6,\), found float64 \(6,\)"),
        (
            {"images": IMAGES, "labels": np.stack([LABELS, LABELS], axis=1)},
            r"'labels': expected integers \(6,\), found int16 \(6, 2\)",
        ),
        ({"images": IMAGES, "labels": LABELS[:4]}, r"'labels': expected integers \(6,\), found int16 \(4,\)"),
    ],
)
def test_unfit_arrays_are_named(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        list(source({"train": str(tmp_path / "a.npz")}).rows())


def test_missing_corrupted_and_pickled_archives_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"npz: file .*none.npz does not exist"):
        list(source({"train": str(tmp_path / "none.npz")}).rows())
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(
        ValueError, match=r"npz .*text.npz: corrupted, or not an archive of numbers \(File is not a zip file\)"
    ):
        list(source({"train": str(tmp_path / "text.npz")}).rows())
    np.savez(tmp_path / "objects.npz", images=np.array([{}], dtype=object), labels=LABELS)
    with pytest.raises(
        ValueError, match=r"npz .*objects.npz: corrupted, or not an archive of numbers \(it is an array of Python obj"
    ):
        list(source({"train": str(tmp_path / "objects.npz")}).rows())
    np.savez_compressed(tmp_path / "objects.npz", images=np.array([{}], dtype=object), labels=LABELS)
    with pytest.raises(
        ValueError, match=r"objects.npz: corrupted, or not an archive of numbers \(Object arrays cannot be loaded"
    ):
        list(source({"train": str(tmp_path / "objects.npz")}).rows())


def test_a_flipped_byte_in_a_compressed_archive_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, images=IMAGES, labels=LABELS)
    raw = bytearray(path.read_bytes())
    raw[200] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"npz .*a.npz: corrupted"):
        list(source({"train": str(path)}).rows())


@pytest.mark.parametrize(
    ("shape", "channels_first"),
    [
        ((4, 3, 8, 9), True),
        ((4, 1, 8, 9), True),
        ((4, 4, 28, 28), True),
        ((4, 3, 3, 9), True),
        ((4, 3, 3, 3), False),  # both may be channels: as documented, the last are
        ((4, 3, 8, 3), False),
        ((4, 1, 28, 1), False),
        ((4, 8, 9, 3), False),
        ((4, 8, 9), False),
        ((4, 3, 9), False),  # no channels: images of 3 x 9
    ],
)
def test_channels_first_are_refused_with_the_transpose(
    tmp_path: Path, shape: tuple[int, ...], channels_first: bool
) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(4))
    opened = source({"train": str(tmp_path / "a.npz")})
    if not channels_first:
        assert opened.read([row.key for row in opened.rows()])[2].image.shape == shape[1:]  # type: ignore[union-attr]  # arrays
        return
    with pytest.raises(
        ValueError,
        match=r"'images': expected channels last, found uint8 .*, channels first; store it as images\.transpose",
    ) as said:
        list(opened.rows())
    match = re.search(r"images(\.transpose\([\d, ]+\))", str(said.value))
    assert match is not None
    mended = images.transpose(*map(int, re.findall(r"\d", match[1])))
    assert mended.shape == (shape[0], *shape[2:], shape[1])
    np.savez(tmp_path / "a.npz", images=mended, labels=np.arange(4))
    read = opened.read([row.key for row in opened.rows()])[2].image
    np.testing.assert_array_equal(np.asarray(read), np.moveaxis(images[2], 0, -1))


@pytest.mark.parametrize("shape", [(4, 8, 9, 7), (4, 8, 9, 0), (4, 0, 9), (4, 9), (4,), (4, 1, 8, 9, 3), (4, 5, 8, 9)])
def test_arrays_that_are_not_images_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros(shape, np.uint8), labels=np.arange(4))
    with pytest.raises(ValueError, match=r"'images': expected uint8 \(N, H, W\) or \(N, H, W, C\)"):
        list(source({"train": str(tmp_path / "a.npz")}).rows())


def test_classes_map_labels_to_outputs(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=np.array([-1, 7, 300, -1, 7, 300], np.int16))
    opened = source({"train": str(tmp_path / "a.npz")}, classes={-1: 2, 7: 0, 300: 1})
    assert [row.label for row in opened.rows()] == [2, 0, 1, 2, 0, 1]
    assert opened.class_names() == {2: "-1", 0: "7", 1: "300"}
    few = source({"train": str(tmp_path / "a.npz")}, classes={-1: 2, 7: 0})
    with pytest.raises(
        ValueError, match=r"npz .*a.npz: expected labels of `classes`, found 300 of image 2; add it there"
    ):
        list(few.rows())


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("n" * 300, "has a path that is too long"),
        ("a.txt/b.npz", "lies below a file, not a folder"),
        (".", "is a folder"),
    ],
)
def test_archives_that_cannot_be_opened_are_named(tmp_path: Path, place: str, why: str) -> None:
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(ValueError, match=rf"npz: file .* {why}"):
        list(source({"train": str(tmp_path / place)}).rows())
