"""Masks as bits: 64 pixels a word, so that an intersection is an AND and a popcount."""

import numpy as np
from numpy.typing import NDArray

from tasks.detectors.arrays import Longs

Bits = NDArray[np.uint64]


def pack(masks: NDArray[np.bool_]) -> Bits:
    """Pack masks.

    Parameters
    ----------
    masks : (m, H, W) bool

    Returns
    -------
    (m, words) uint64, zeros after the last pixel; each row of pixels starts a byte
    """
    return words(np.packbits(masks, axis=2))


def words(rows: NDArray[np.uint8]) -> Bits:
    """Join the packed rows of pixels of m masks, (m, H, bytes), to (m, words) uint64."""
    flat = rows.reshape(len(rows), rows.shape[1] * rows.shape[2])
    padded = np.zeros((len(flat), -(-flat.shape[1] // 8) * 8), dtype=np.uint8)
    padded[:, : flat.shape[1]] = flat
    return padded.view(np.uint64)


def area(bits: Bits) -> Longs:
    """Count the pixels of masks (..., words), int64."""
    counts: Longs = np.bitwise_count(bits).sum(axis=-1, dtype=np.int64)
    return counts


def overlaps(bits: Bits, others: Bits) -> Longs:
    """Count the pixels that masks have in common.

    Parameters
    ----------
    bits : (U, words) uint64, mostly zeros: those words are skipped
    others : (m, words) uint64

    Returns
    -------
    (U, m) int64
    """
    rows, columns = np.nonzero(bits)
    values, (present, starts) = bits[rows, columns], np.unique(rows, return_index=True)
    counts = np.zeros((len(bits), len(others)), dtype=np.int64)
    for index, other in enumerate(others if len(present) else ()):
        common = np.bitwise_count(values & other[columns])
        counts[present, index] = np.add.reduceat(common, starts, dtype=np.int64)
    return counts
