"""Sheets of small images: files that a page loads when it shows one of their images."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.figures.overlay import Image, as_rgb, shrink

SIDE = 16  # images in a row and in a column of a sheet

Place = tuple[int, int, int, int, int]  # sheet, x, y, width, height in pixels


def sheets(images: Sequence[NDArray[np.uint8]], longest: int) -> tuple[list[bytes], list[Place]]:
    """Put images on sheets of 16 x 16, as PNG files.

    Parameters
    ----------
    images : (H, W), (H, W, 1) or (H, W, 3) uint8, of any sizes
    longest : pixels; larger images are shrunk

    Returns
    -------
    the files, and the place of each image
    """
    small = [shrink(as_rgb(image), longest) for image in images]
    cell = max((max(image.shape[:2]) for image in small), default=1)
    files, places = list[bytes](), list[Place]()
    for start in range(0, len(small), SIDE * SIDE):
        part = small[start : start + SIDE * SIDE]
        sheet = np.zeros((cell * -(-len(part) // SIDE), cell * min(len(part), SIDE), 3), np.uint8)
        for number, image in enumerate(part):
            y, x = (cell * at for at in divmod(number, SIDE))
            height, width = image.shape[:2]
            sheet[y : y + height, x : x + width] = image
            places.append((len(files), x, y, width, height))
        files.append(_png(sheet))
    return files, places


def _png(image: Image) -> bytes:
    """Return an image as a PNG file."""
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, np.ascontiguousarray(image), format="png", metadata={"Software": "layerlore"})
    return buffer.getvalue()
