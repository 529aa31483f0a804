"""The images on which features respond most, and the regions of these images in which they do."""

import numpy as np
from numpy.typing import NDArray

Maps = NDArray[np.floating]

HIGH = 0.5  # share of a map's largest value from which on a position belongs to the region around the peak
ACTIVE = 0.5  # share of a feature's largest response from which on it counts as active on an image
WHOLE = (0.0, 0.0, 1.0, 1.0)


class TopMaps:
    """The k images with the largest responses of each feature, with their maps, over chunks of images.

    Parameters
    ----------
    k : images of each feature

    Notes
    -----
    Holds k maps of each feature. Of equal responses the image that came first stays first.
    """

    def __init__(self, k: int) -> None:
        self.k = k
        self._value: NDArray[np.float64] | None = None
        self._at: NDArray[np.int64] = np.zeros((0, 0), np.int64)
        self._maps: Maps = np.zeros(0, np.float32)

    def update(self, responses: Maps, at: NDArray[np.int64]) -> NDArray[np.float64]:
        """Add the responses (n, h, w, f) of the images at positions (n,); return the largest of each (n, f)."""
        largest: NDArray[np.float64] = responses.max(axis=(1, 2)).astype(np.float64)
        value, maps = largest.T, np.moveaxis(responses, 3, 0)
        positions = np.broadcast_to(at, value.shape)
        if self._value is not None:
            value = np.concatenate([self._value, value], axis=1)
            positions = np.concatenate([self._at, positions], axis=1)
            maps = np.concatenate([self._maps, maps], axis=1)
        top = np.argsort(-value, axis=1, kind="stable")[:, : self.k]
        self._value, self._at = np.take_along_axis(value, top, 1), np.take_along_axis(positions, top, 1)
        self._maps = np.take_along_axis(maps, top[:, :, None, None], 1)
        return largest

    def result(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Return positions (f, k), responses (f, k) and boxes (f, k, 4); -1 and NaN where a feature does not respond.

        A box is (top, left, bottom, right), as shares of the image's height and width.
        """
        assert self._value is not None
        positions = np.full((len(self._at), self.k), -1, np.int64)
        value, box = np.full(positions.shape, np.nan), np.full((*positions.shape, 4), np.nan)
        for row, rank in np.argwhere(self._value > 0):
            positions[row, rank], value[row, rank] = self._at[row, rank], self._value[row, rank]
            box[row, rank] = peak_box(self._maps[row, rank])
        return positions, value, box


def peak_box(values: Maps) -> tuple[float, float, float, float]:
    """Return the box around the peak of a map, as shares of its height and width.

    Parameters
    ----------
    values : (h, w), with a largest value above 0

    Returns
    -------
    top, left, bottom, right: of the region of neighbouring positions with at least half of the largest value; of equal
    peaks that of the first position
    """
    from scipy.ndimage import find_objects, label

    regions, _ = label(values >= HIGH * values.max())  # neighbours share a side
    peak = regions.flat[np.argmax(values)]
    rows, columns = find_objects(regions)[peak - 1]
    height, width = values.shape
    return rows.start / height, columns.start / width, rows.stop / height, columns.stop / width


def active_share(largest: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the share of images on which a feature is active.

    Parameters
    ----------
    largest : (n, f), each feature's largest response on each image

    Returns
    -------
    (f,) float64: images with at least half of the feature's largest response; 0 where it does not respond
    """
    most = largest.max(axis=0)
    active: NDArray[np.float64] = ((largest >= ACTIVE * most) & (most > 0)).mean(axis=0)
    return active
