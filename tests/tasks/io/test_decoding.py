"""Tests of `tasks.io.decoding`."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.io.decoding import read_image, read_images
from tasks.io.samples import file_digest, mode_of


@pytest.mark.parametrize("threads", [1, 3])
def test_images_come_in_the_order_of_the_keys(tmp_path: Path, save_image: Callable[..., Path], threads: int) -> None:
    paths = {f"train/{i}": save_image(tmp_path / f"{i}.png", seed=i) for i in range(7)}
    keys = ["train/5", "train/0", "train/3"]
    samples = read_images(keys, lambda key: str(paths[key]), threads)
    for key, sample in zip(keys, samples, strict=True):
        expected = np.random.default_rng(int(key[-1])).integers(0, 256, (6, 5, 3), dtype=np.uint8)
        np.testing.assert_array_equal(np.asarray(sample.image), expected)
        assert sample.digest == file_digest(paths[key].read_bytes())


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_truncated_image_is_named(tmp_path: Path, save_image: Callable[..., Path], suffix: str) -> None:
    path = save_image(tmp_path / f"a.{suffix}", size=(60, 60))
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(
        ValueError, match=rf"sample train/a: corrupted or not an image: .*a.{suffix} \(.*truncated"
    ) as e:
        read_image("train/a", str(path))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("raw", [b"not an image", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"\0" * 20])
def test_what_is_no_image_is_named(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "a.png").write_bytes(raw)
    with pytest.raises(ValueError, match=r"sample k: corrupted or not an image: .*a.png"):
        read_image("k", str(tmp_path / "a.png"))


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"sample k: empty file: .*a.png; replace the file"):
        read_image("k", str(tmp_path / "a.png"))


def test_a_file_gone_since_the_listing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"sample k: expected file .*gone.png, as when"):
        read_image("k", str(tmp_path / "gone.png"))


def test_a_file_without_permission_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str) -> bytes:
        raise PermissionError(13, "Permission denied", url)

    monkeypatch.setattr("tasks.io.decoding.read_bytes", refuse)  # root may read everything
    with pytest.raises(ValueError, match=r"sample k: no permission to read file locked.png"):
        read_image("k", "locked.png")


def test_a_stored_mode_is_kept(tmp_path: Path) -> None:
    Image.new("CMYK", (3, 2)).save(tmp_path / "a.jpg")
    assert mode_of(read_image("k", str(tmp_path / "a.jpg")).image) == "CMYK"
