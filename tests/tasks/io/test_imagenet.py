"""Tests of `tasks.io.imagenet`."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tasks.io.imagenet import ImageNetSource
from tasks.io.samples import mode_of


@pytest.fixture
def root(tmp_path: Path, save_image: Callable[..., Path]) -> Path:
    """ImageNet's layout with two classes."""
    for split in ("train", "val"):
        for wnid in ("n02", "n01"):
            save_image(tmp_path / split / wnid / f"{split}_{wnid}.JPEG")
    return tmp_path


def test_labels_number_the_sorted_folders(root: Path) -> None:
    source = ImageNetSource(str(root))
    assert [(row.key, row.label) for row in source.rows()] == [
        ("train/n01/train_n01.JPEG", 0),
        ("train/n02/train_n02.JPEG", 1),
        ("val/n01/val_n01.JPEG", 0),
        ("val/n02/val_n02.JPEG", 1),
    ]
    assert source.class_names() == {0: "n01", 1: "n02"}
    assert mode_of(source.read(["val/n02/val_n02.JPEG"])[0].image) == "RGB"


def test_names_come_from_meta_bin(root: Path) -> None:
    torch.save(({"n01": ("tench", "Tinca tinca"), "n99": ("other",)}, ["n01"]), root / "meta.bin")
    assert ImageNetSource(str(root)).class_names() == {0: "tench, Tinca tinca", 1: "n02"}


def test_names_of_all_thousand_classes_are_torchvisions(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for i in range(1000):
            (tmp_path / split / f"n{i:04}").mkdir(parents=True)
    names = ImageNetSource(str(tmp_path)).class_names()
    assert (names[0], names[207], len(names)) == ("tench", "golden retriever", 1000)


def test_another_meta_bin_is_refused(root: Path) -> None:
    torch.save({"n01": "tench"}, root / "meta.bin")
    with pytest.raises(ValueError, match=r"imagenet: expected torchvision's meta.bin at .*meta.bin"):
        ImageNetSource(str(root)).class_names()
    (root / "meta.bin").write_text("something else")
    with pytest.raises(ValueError, match=r"file .*meta.bin is corrupted"):
        ImageNetSource(str(root)).class_names()
