"""Preprocess a decoded image to a network's input, as torchvision's classification transforms do.

Pillow alone does it here: a plan reads a few images, and an import of torchvision takes seconds.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from configs.schema import Preprocessing
from tasks.io.samples import Picture, Vector, mode_of


def preprocess(image: Picture | Vector, preprocessing: Preprocessing, key: str) -> torch.Tensor:
    """Convert a decoded image to a network's input: mode, resize, centre crop, scale to 0..1, normalise.

    Parameters
    ----------
    image : a PIL image, or an array (H, W) or (H, W, C) uint8; a vector (K,), such as a graph, is the input as it is
    preprocessing : with `like` resolved by `tasks.io.networks.resolve_preprocessing`
    key : the sample's key, for errors

    Returns
    -------
    (C, h, w) float32, or (K,) for a vector

    Raises
    ------
    ValueError : the image's mode is not the network's, or the image is smaller than the crop
    """
    if isinstance(image, Vector):
        given = preprocessing.model_dump(exclude_defaults=True)
        if given:
            raise ValueError(
                f"sample {key}: expected an image for preprocessing.{next(iter(given))}, found a vector, such as a "
                "graph; leave `preprocessing` out"
            )
        return torch.from_numpy(image.values.copy())
    converted = _in_mode(image, preprocessing, key)
    resized = _resize(converted, preprocessing)
    pixels = np.asarray(resized if preprocessing.crop is None else _crop(_pil(resized), preprocessing, key))
    planes = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    return _normalise(torch.from_numpy(np.array(planes, order="C")), preprocessing)


def rgb_array(image: Picture | Vector, key: str) -> NDArray[np.uint8]:
    """Return a decoded image of any mode as an array (H, W, 3) uint8; `key` is the sample's, for errors.

    Raises
    ------
    ValueError : an image that cannot be converted, or a sample that is not an image
    """
    if isinstance(image, Vector):
        raise ValueError(
            f"sample {key}: expected an image, found a vector of {len(image.values)} numbers, such as a graph"
        )
    found: NDArray[np.uint8] = np.asarray(_in_mode(image, Preprocessing(mode="RGB", convert=True), key))
    return found


def _in_mode(image: Picture, preprocessing: Preprocessing, key: str) -> Picture:
    """Return the image in the network's mode; raise ValueError if it has another mode."""
    found = mode_of(image)
    if found == preprocessing.mode:
        return image
    if not preprocessing.convert:
        raise ValueError(
            f"sample {key}: expected image mode {preprocessing.mode}, as the network takes, found {found}; "
            "set `convert: true` in its preprocessing to convert such images"
        )
    try:
        return _convert(_pil(image), preprocessing.mode)
    except ValueError as error:
        raise ValueError(f"sample {key}: image mode {found} cannot be converted to {preprocessing.mode}") from error


def _convert(image: Image.Image, mode: str) -> Image.Image:
    """Convert an image as PIL does; 16-bit grey is scaled, since PIL would clip it at 255; drops transparency."""
    if image.mode.startswith("I;16"):
        levels = np.asarray(image).astype(np.float32) / 257  # 65535 / 255
        image = Image.fromarray(np.rint(levels).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError("its levels do not have a fixed range")
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert(mode)


def _pil(image: Picture) -> Image.Image:
    """Return a PIL image or an array as a PIL image."""
    if isinstance(image, Image.Image):
        return image
    if mode_of(image).endswith("channels"):
        raise ValueError(f"expected an image array (H, W) or (H, W, C), found shape {image.shape}")
    return Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image)


def _resize(image: Picture, preprocessing: Preprocessing) -> Picture:
    """Resize an image with antialiasing, by its shorter side or to height and width."""
    if preprocessing.resize is None:
        return image
    found, size = _pil(image), preprocessing.resize
    if isinstance(size, int):
        short, long = sorted(found.size)
        sides = size, int(size * long / short)
        height, width = sides if found.height <= found.width else sides[::-1]
    else:
        height, width = size
    if found.size == (width, height):
        return found
    return found.resize((width, height), Image.Resampling[preprocessing.interpolation.upper()])


def _crop(image: Image.Image, preprocessing: Preprocessing, key: str) -> Image.Image:
    """Crop the centre of an image; torchvision would pad a smaller image with black."""
    side = preprocessing.crop
    assert side is not None
    if min(image.size) < side:
        after = "" if preprocessing.resize is None else " after preprocessing.resize"
        raise ValueError(
            f"sample {key}: preprocessing.crop: expected at most the image's {image.height} x {image.width} pixels"
            f"{after}, found {side}; lower it, or resize to at least that"
        )
    top, left = (round((length - side) / 2) for length in (image.height, image.width))
    return image.crop((left, top, left + side, top + side))


def _normalise(planes: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """Scale (C, h, w) uint8 to 0..1 and normalise each channel."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, len(planes)):
            raise ValueError(f"preprocessing.{name}: expected {len(planes)} values, as channels, found {len(values)}")
    return planes.float().div_(255).sub_(mean).div_(std)
