"""Tests of `tasks.io.npz`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.schema import Npz
from tasks.io.npz import NpzSource, _member
from tasks.io.samples import array_digest

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
LABELS = np.array([2, 0, 1, 2, 0, 1], dtype=np.int16)


def source(paths: dict[str, Any], **names: str) -> NpzSource:
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
    mapped, read = (_member(str(tmp_path / name), "images") for name in ("a.npz", "b.npz"))
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
    with pytest.raises(ValueError, match="sample train/6: split 'train' has no such sample"):
        opened.read(["train/6"])


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
        ({"images": IMAGES}, "no array 'labels'; the archive has: images"),
        ({"images": IMAGES / 255, "labels": LABELS}, r"'images' is float64 \(6, 4, 5, 3\), expected uint8 \(N, H, W\)"),
        ({"images": IMAGES[:, 0, 0], "labels": LABELS}, r"'images' is uint8 \(6, 3\), expected uint8"),
        ({"images": IMAGES, "labels": LABELS / 2}, r"'labels' is float64 \(6,\), expected integers \(6,\)"),
        ({"images": IMAGES, "labels": LABELS[:4]}, r"'labels' is int16 \(4,\), expected integers \(6,\)"),
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
        ValueError, match=r"npz .*objects.npz: corrupted, or not an archive of numbers \(an array of Python obj"
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
