"""Tests of `tasks.io.samples`."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from tasks.io.samples import array_digest, file_digest, mode_of


def test_array_digest_is_of_shape_and_pixels() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert array_digest(image) == hashlib.blake2b(b"3x4:" + bytes(range(12)), digest_size=16).hexdigest()
    assert array_digest(image) != array_digest(image.reshape(4, 3))
    assert len(file_digest(b"x")) == 32


@pytest.mark.parametrize(
    ("shape", "mode"),
    [((2, 2), "L"), ((2, 2, 1), "L"), ((2, 2, 3), "RGB"), ((2, 2, 4), "RGBA"), ((2, 2, 7), "7 channels")],
)
def test_mode_of_an_array_follows_its_channels(shape: tuple[int, ...], mode: str) -> None:
    assert mode_of(np.zeros(shape, dtype=np.uint8)) == mode


def test_mode_of_a_picture_is_its_own() -> None:
    assert mode_of(Image.new("CMYK", (2, 2))) == "CMYK"
