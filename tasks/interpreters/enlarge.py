"""Resize maps to the size of the image below them."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F


def enlarge(heat: NDArray[np.floating], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize a heat map bilinearly.

    Parameters
    ----------
    heat : (h, w) float
    size : (H, W) of the image

    Returns
    -------
    (H, W) float32
    """
    small = torch.from_numpy(np.ascontiguousarray(heat, dtype=np.float32))[None, None]
    large: NDArray[np.float32] = F.interpolate(small, size=size, mode="bilinear", align_corners=False)[0, 0].numpy()
    return large
