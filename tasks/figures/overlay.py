"""Heat maps on images, and images small enough for a page."""

import base64
import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

COLOURMAP = "inferno"  # perceptually uniform, and its lightness alone carries the value
IMAGE_SHARE = 0.6
THUMBNAIL = 96  # pixels, longer side


@dataclass(frozen=True)
class Thumbnail:
    """An image in a page: stored once, however often it is shown.

    Attributes
    ----------
    digest : of shape and pixels, 16 hex digits
    width, height : pixels
    uri : the PNG as a data URI
    """

    digest: str
    width: int
    height: int
    uri: str


def overlay(image: NDArray[np.uint8], heat: NDArray[np.floating]) -> Image:
    """Blend an image with the colours of its heat map, 0.6 to 0.4.

    Parameters
    ----------
    image : (H, W), (H, W, 1) or (H, W, 3) uint8
    heat : (H, W) float, any range: min-max scaled here; a flat map counts as 0 everywhere

    Returns
    -------
    (H, W, 3) uint8
    """
    from matplotlib import colormaps

    picture = as_rgb(image)
    if heat.shape != picture.shape[:2]:
        raise ValueError(f"heat map: expected shape {picture.shape[:2]}, found {heat.shape}; resize the map first")
    colours = colormaps[COLOURMAP](min_max(heat))[..., :3] * 255
    return np.rint(IMAGE_SHARE * picture + (1 - IMAGE_SHARE) * colours).astype(np.uint8)


def min_max(heat: NDArray[np.floating]) -> NDArray[np.float64]:
    """Scale to 0..1; a flat map gives zeros, NaN counts as the smallest value."""
    values = np.asarray(heat, np.float64)
    finite = values[np.isfinite(values)]
    if finite.size == 0 or finite.max() == finite.min():
        return np.zeros_like(values)
    scaled = (values - finite.min()) / (finite.max() - finite.min())
    clipped: NDArray[np.float64] = np.clip(np.nan_to_num(scaled, nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0)
    return clipped


def as_rgb(image: NDArray[np.uint8]) -> Image:
    """Repeat a grey image (H, W) or (H, W, 1) over three channels; (H, W, 3) is taken as it is."""
    stacked = image[..., None] if image.ndim == 2 else image
    if image.dtype != np.uint8 or stacked.ndim != 3 or stacked.shape[2] not in (1, 3):
        raise ValueError(
            f"image of shape {image.shape} and {image.dtype}: expected (H, W), (H, W, 1) or (H, W, 3) uint8"
        )
    return np.broadcast_to(stacked, (*stacked.shape[:2], 3))


def shrink(image: Image, longest: int = THUMBNAIL) -> Image:
    """Make an image at most `longest` pixels wide and high by area averaging; a smaller one is returned as it is.

    Parameters
    ----------
    image : (H, W, 3) uint8
    longest : pixels
    """
    height, width = image.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return image
    rows = area_weights(height, max(1, round(height * scale)))
    columns = area_weights(width, max(1, round(width * scale)))
    averaged = np.einsum("ph,hwc,qw->pqc", rows, image.astype(np.float64), columns, optimize=True)
    small: Image = np.rint(averaged).astype(np.uint8)
    return small


def thumbnail(image: NDArray[np.uint8], longest: int = THUMBNAIL) -> Thumbnail:
    """Shrink an image to at most `longest` pixels wide and high and write it as a PNG data URI."""
    from matplotlib.image import imsave

    small = np.ascontiguousarray(shrink(as_rgb(image), longest))
    height, width = small.shape[:2]
    digest = hashlib.blake2b(f"{small.shape}".encode() + small.tobytes(), digest_size=8).hexdigest()
    buffer = io.BytesIO()
    imsave(buffer, small, format="png", metadata={"Software": "layerlore"})
    return Thumbnail(digest, width, height, "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode())


def unique_thumbnails(thumbnails: Iterable[Thumbnail]) -> list[Thumbnail]:
    """Keep the first of each content."""
    return list({thumb.digest: thumb for thumb in thumbnails}.values())


def area_weights(n_from: int, n_to: int) -> NDArray[np.float64]:
    """Row i holds how much of output pixel i each input pixel covers, (n_to, n_from), rows summing to 1."""
    edges = np.arange(n_to + 1) * (n_from / n_to)
    low = np.maximum(edges[:-1, None], np.arange(n_from))
    high = np.minimum(edges[1:, None], np.arange(n_from) + 1)
    weights: NDArray[np.float64] = np.clip(high - low, 0.0, None) * (n_to / n_from)
    return weights
