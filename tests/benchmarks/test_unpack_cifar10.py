"""Tests of `benchmarks/unpack_cifar10.py`."""

import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "unpack_cifar10.py"


@pytest.fixture
def script() -> dict[str, Any]:
    """The script's names."""
    return runpy.run_path(str(SCRIPT))


def pack(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pack images (N, 32, 32, 3) as the files do: R-G, G, B-G, differenced along both axes, modulo 256."""
    red, green, blue = np.moveaxis(images, -1, 0)
    planes = np.stack([red - green, green, blue - green])
    rows = np.diff(planes, axis=-1, prepend=np.uint8(0))
    return np.diff(rows, axis=-2, prepend=np.uint8(0))


def run(*arguments: object) -> None:
    """Run the script as a program."""
    sys.argv = [str(SCRIPT), *map(str, arguments)]
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_unpacking_undoes_the_packing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [])
    images = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(7, dtype=np.uint8)
    for name, part in {"train_0": slice(0, 3), "train_1": slice(3, 5), "test": slice(5, 7)}.items():
        np.savez(tmp_path / f"cifar10_{name}.npz", planes=pack(images[part]), labels=labels[part])
    run(tmp_path, tmp_path / "out")
    for split, part in {"train": slice(0, 5), "test": slice(5, 7)}.items():
        with np.load(tmp_path / "out" / f"{split}.npz", allow_pickle=False) as archive:
            np.testing.assert_array_equal(archive["images"], images[part])
            np.testing.assert_array_equal(archive["labels"], labels[part])
    assert "train.npz: 5 images" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["test.npz", "train.npz"]


def test_missing_files_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [])
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, tmp_path / "out")
    assert stop.value.code == 2
    assert f"no cifar10_train*.npz in {tmp_path}" in capsys.readouterr().err


def test_a_full_file_with_other_pixels_is_refused(tmp_path: Path, script: dict[str, Any]) -> None:
    path = tmp_path / "cifar10_test.npz"
    np.savez(path, planes=np.zeros((3, 10_000, 32, 32), dtype=np.uint8), labels=np.zeros(10_000, dtype=np.uint8))
    with pytest.raises(
        ValueError, match=r"cifar10_test.npz: decoded pixels have SHA-256 [0-9a-f]{64}, expected 12496260"
    ):
        script["read_packed"](path)


@pytest.mark.slow
def test_the_published_test_images_have_their_digest(data_dir: Path, script: dict[str, Any]) -> None:
    images, labels = script["read_packed"](data_dir / "cifar10" / "cifar10_test.npz")
    assert images.shape == (10_000, 32, 32, 3)
    np.testing.assert_array_equal(np.bincount(labels), [1000] * 10)
