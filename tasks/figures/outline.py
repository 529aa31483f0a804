"""The outline of a region on a small picture."""

import numpy as np
from numpy.typing import NDArray

from tasks.figures.overlay import THUMBNAIL, Image, as_rgb

BRIGHT = (255, 0, 220)


def enlarge(image: NDArray[np.uint8], longest: int = THUMBNAIL) -> Image:
    """Repeat the pixels of a small image as often as it stays within `longest` pixels; others are returned as is.

    Parameters
    ----------
    image : (H, W, 3) uint8
    longest : pixels
    """
    times = max(1, longest // max(image.shape[:2]))
    large: Image = as_rgb(image).repeat(times, axis=0).repeat(times, axis=1)
    return large


def outline(image: NDArray[np.uint8], region: NDArray[np.bool_]) -> Image:
    """Return an image with the pixels at the edge of a region in a bright colour; the image's border is an edge.

    Parameters
    ----------
    image : (H, W, 3) uint8
    region : (H, W) bool
    """
    padded = np.pad(region, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    drawn = as_rgb(image).copy()
    drawn[region & ~inside] = BRIGHT
    return drawn


def resize_map(values: NDArray[np.floating], size: tuple[int, int]) -> NDArray[np.float64]:
    """Resize a map (h, w) bilinearly to `size`, as torch does with `align_corners=False`."""
    rows, columns = (_weights(*each) for each in zip(values.shape, size, strict=True))
    resized: NDArray[np.float64] = rows @ values.astype(np.float64) @ columns.T
    return resized


def _weights(n_from: int, n_to: int) -> NDArray[np.float64]:
    """Return the share of each of `n_from` values in each of `n_to` pixels, (n_to, n_from)."""
    position = (np.arange(n_to) + 0.5) * (n_from / n_to) - 0.5  # np.interp holds the ends
    return np.stack([np.interp(position, np.arange(n_from), unit) for unit in np.eye(n_from)], axis=1)
