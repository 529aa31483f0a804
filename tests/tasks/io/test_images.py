"""Tests of `tasks.io.images`."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from configs.schema import Preprocessing
from tasks.io.images import preprocess

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def noise(*shape: int) -> NDArray[np.uint8]:
    """Return seeded noise."""
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("size", [(90, 60), (60, 91), (33, 200), (20, 20)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("resize", [40, (30, 50), None])
def test_equals_torchvisions_transforms(size: tuple[int, int], interpolation: Any, resize: Any) -> None:
    image = Image.fromarray(noise(*size, 3))
    steps = [transforms.CenterCrop(20), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    if resize is not None:
        steps.insert(0, transforms.Resize(resize, InterpolationMode(interpolation)))
    expected = transforms.Compose(steps)(image)
    settings = Preprocessing(resize=resize, crop=20, interpolation=interpolation, mean=MEAN, std=STD)
    found = preprocess(image, settings, "k")
    assert found.shape == (3, 20, 20)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(preprocess(np.asarray(image), settings, "k"), found, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("size", "resize", "sizes"),
    [
        ((40, 19), None, "40 x 19 pixels"),
        ((19, 40), None, "19 x 40 pixels"),
        ((90, 60), 19, "28 x 19 pixels after preprocessing.resize"),
        ((90, 60), (30, 10), "30 x 10 pixels after preprocessing.resize"),
    ],
)
def test_a_crop_larger_than_the_image_is_refused(size: tuple[int, int], resize: Any, sizes: str) -> None:
    with pytest.raises(ValueError, match="sample") as caught:
        preprocess(noise(*size, 3), Preprocessing(resize=resize, crop=20), "train/a")
    expected = f"sample train/a: preprocessing.crop: expected at most the image's {sizes}, found 20"
    assert str(caught.value) == f"{expected}; lower it, or resize to at least that"


def test_a_crop_of_the_whole_image_changes_nothing() -> None:
    image = noise(20, 20, 3)
    whole = preprocess(image, Preprocessing(), "k")
    torch.testing.assert_close(preprocess(image, Preprocessing(crop=20), "k"), whole, rtol=0, atol=0)


def test_without_settings_pixels_are_only_scaled() -> None:
    image = noise(4, 5)
    found = preprocess(image, Preprocessing(mode="L"), "k")
    np.testing.assert_allclose(found.numpy(), image[None] / 255, rtol=0, atol=1e-7)
    np.testing.assert_array_equal(preprocess(image[..., None], Preprocessing(mode="L"), "k"), found)


def test_inputs_are_not_changed() -> None:
    image = noise(4, 5, 3)
    before = image.copy()
    preprocess(image, Preprocessing(mean=MEAN, std=STD), "k")
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "I;16", "LA"])
def test_another_mode_is_named_with_the_remedy(mode: str) -> None:
    with pytest.raises(
        ValueError,
        match=f"sample train/a: expected image mode RGB, as the network takes, found {mode}; set `convert: true`",
    ):
        preprocess(Image.new(mode, (3, 2)), Preprocessing(), "train/a")


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA", "HSV"])
@pytest.mark.parametrize("target", ["RGB", "L"])
def test_conversion_is_pils(mode: str, target: Any) -> None:
    image = Image.fromarray(noise(6, 5, 3)).convert(mode)
    found = preprocess(image, Preprocessing(mode=target, convert=True), "k")
    expected = transforms.functional.to_tensor(image.convert(target))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


def test_a_palette_with_transparency_gives_the_colours_below() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    image.info["transparency"] = bytes([0, 128])
    found = preprocess(image, Preprocessing(convert=True), "k")
    np.testing.assert_array_equal(found[:, 0].numpy().T, [[1, 0, 0], [0, 0, 1]])


def test_sixteen_bit_grey_is_scaled_and_not_cut() -> None:
    image = Image.fromarray(np.array([[0, 257, 32896, 65535]], dtype=np.uint16))
    found = preprocess(image, Preprocessing(mode="L", convert=True), "k")
    np.testing.assert_allclose(found[0, 0].numpy() * 255, [0, 1, 128, 255], rtol=0, atol=1e-4)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_levels_without_a_range_cannot_be_converted(mode: str) -> None:
    with pytest.raises(ValueError, match=f"sample k: image mode {mode} cannot be converted to RGB"):
        preprocess(Image.new(mode, (2, 2)), Preprocessing(convert=True), "k")


def test_odd_channel_numbers_cannot_be_converted() -> None:
    with pytest.raises(ValueError, match="sample k: image mode 7 channels cannot be converted to RGB"):
        preprocess(noise(2, 2, 7), Preprocessing(convert=True), "k")


@pytest.mark.parametrize("name", ["mean", "std"])
def test_values_per_channel_must_fit_the_channels(name: str) -> None:
    settings = Preprocessing.model_validate({"mode": "L", name: (0.5, 0.5, 0.5)})
    with pytest.raises(ValueError, match=rf"preprocessing.{name}: expected 1 values, as channels, found 3"):
        preprocess(noise(2, 2), settings, "k")
