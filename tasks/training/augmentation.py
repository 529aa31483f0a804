"""Random crops and flips as a pure function of (seed, epoch, sample id), independent of the batch."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Ids = NDArray[np.int64]
BITS = np.uint64(24)  # bits of the hash for each offset
MASK = np.uint64(2**24 - 1)


def crop_and_flip(images: Tensor, ids: Ids, *, seed: int, epoch: int, pad: int = 0, flip: bool = False) -> Tensor:
    """Pad images with zeros, crop them at random to their old size, and mirror every second image at random.

    Parameters
    ----------
    images : (n, C, h, w), preprocessed; padding has the colour that preprocessing maps to zero
    ids : (n,) int64 sample ids; equal ids get the same crop and flip
    seed : seed of the run
    epoch : index of the epoch, from 0
    pad : pixels on each side
    flip : whether images are mirrored left to right, with probability 1/2

    Returns
    -------
    (n, C, h, w), dtype and device of `images`

    Raises
    ------
    ValueError : the inputs are not images, or the numbers of images and ids differ
    """
    if images.ndim != 4 or len(images) != len(ids):
        raise ValueError(
            f"augment: expected images (n, C, h, w) and n ids, found shape {tuple(images.shape)} and {len(ids)} ids"
        )
    _, _, height, width = images.shape
    drawn = hash_ids(ids, seed, epoch)
    span = np.uint64(2 * pad + 1)
    top, left = (((drawn >> shift) & MASK) * span >> BITS for shift in (np.uint64(0), BITS))
    mirrored = (drawn >> np.uint64(63)).astype(bool) & flip
    rows = top.astype(np.int64)[:, None] + np.arange(height)
    columns = np.where(mirrored[:, None], np.arange(width)[::-1], np.arange(width)) + left.astype(np.int64)[:, None]
    row, column = (torch.from_numpy(index).to(images.device) for index in (rows, columns))
    sample = torch.arange(len(images), device=images.device)[:, None, None]
    cut = F.pad(images, (pad, pad, pad, pad))[sample, :, row[:, :, None], column[:, None, :]]  # (n, h, w, C)
    return cut.permute(0, 3, 1, 2).contiguous()


def hash_ids(ids: Ids, seed: int, epoch: int) -> NDArray[np.uint64]:
    """Return 64 random bits per id: splitmix64 (Steele, Lea, Flood 2014) of (seed, epoch), then of the id."""
    state = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)
    return _mix(_mix(ids.astype(np.uint64) + state) ^ state)


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the output function of splitmix64; arithmetic is modulo 2^64."""
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
