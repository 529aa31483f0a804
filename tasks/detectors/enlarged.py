"""Where a unit's map exceeds its threshold after bilinear enlargement to the size of the masks."""

import numpy as np
from numpy.typing import NDArray

from tasks.detectors.arrays import Doubles, Floats, Longs
from tasks.detectors.bits import Bits, words


def enlarged_masks(maps: Floats, threshold: Doubles, size: tuple[int, int]) -> Bits:
    """Enlarge maps bilinearly (align_corners=False) and compare each with its threshold.

    Parameters
    ----------
    maps : (U, h, w) float
    threshold : (U,) float64
    size : (H, W) of the masks

    Returns
    -------
    (U, words) uint64, packed as `bits.pack` does; a pixel is set where the map is strictly above the threshold

    Notes
    -----
    Between neighbours a and b a pixel is a + share (b - a): constant areas keep their value to the last bit, so that
    a map that equals its threshold is never above it. Few values of a unit are above its threshold. Rows of pixels
    between two lines without such a value are therefore skipped.
    """
    n_units, height = maps.shape[:2]
    packed = np.zeros((n_units, size[0], -(-size[1] // 8)), dtype=np.uint8)
    above = maps.max(axis=2) > threshold[:, None]
    below = np.minimum(np.arange(height) + 1, height - 1)  # the next line
    needed = above | above[:, below]
    first, share = _positions(height, size[0])
    ends = np.searchsorted(first, np.arange(height + 1))
    for line in np.flatnonzero(needed.any(axis=0) & (np.diff(ends) > 0)).tolist():
        units, rows = np.flatnonzero(needed[:, line]), slice(ends[line], ends[line + 1])
        upper, lower = (_wider(maps[units, which].astype(np.float64), size[1]) for which in (line, below[line]))
        pixels = upper + share[rows, None, None] * (lower - upper)
        packed[units, rows] = np.packbits(pixels > threshold[units, None], axis=2).transpose(1, 0, 2)
    return words(packed)


def _wider(lines: Doubles, size: int) -> Doubles:
    """Enlarge or shrink lines (U, w) to (U, size)."""
    first, share = _positions(lines.shape[1], size)
    steps = np.diff(lines, axis=1, append=lines[:, -1:])
    result: Doubles = lines[:, first] + share * steps[:, first]
    return result


def _positions(n: int, size: int) -> tuple[Longs, Doubles]:
    """Return for each of `size` pixels its lower neighbour of n, and the share of the way to the next one."""
    position = np.maximum((np.arange(size) + 0.5) * (n / size) - 0.5, 0.0)
    first = np.minimum(position.astype(np.int64), n - 1)
    share: NDArray[np.float64] = np.where(first == n - 1, 0.0, position - first)
    return first, share
