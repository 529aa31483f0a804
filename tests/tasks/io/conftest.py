"""Builders of small image files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Save = Callable[..., Path]


@pytest.fixture
def save_image() -> Save:
    """Return a function that writes a seeded noise image: path, mode, (height, width), seed."""

    def save(path: Path, mode: str = "RGB", size: tuple[int, int] = (6, 5), seed: int = 0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(path)
        return path

    return save


@pytest.fixture
def folders(tmp_path: Path, save_image: Save) -> Path:
    """Return a folder with train/{cat,dog} of 3 and 2 images and val/{cat,dog} of 1 each."""
    for split, counts in {"train": {"cat": 3, "dog": 2}, "val": {"cat": 1, "dog": 1}}.items():
        for name, count in counts.items():
            for i in range(count):
                save_image(tmp_path / "images" / split / name / f"{i}.png", seed=10 * count + i)
    return tmp_path / "images"
