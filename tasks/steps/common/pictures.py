"""Images as people see them: which samples are shown, and inputs of a network turned back into pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from configs.schema import Preprocessing
from tasks.figures.overlay import shrink

if TYPE_CHECKING:
    from torch import Tensor

THUMBNAIL = 96 * 96  # pixels of a picture at most


def chosen_positions(slabs: Mapping[int, tuple[int, int]], count: int) -> list[tuple[int, int, int]]:
    """Return (class index, label, position) of `count` samples, spread over the classes, first samples first."""
    labels = list(slabs)
    found = []
    for number in range(count):
        index = number * len(labels) // count if count <= len(labels) else number % len(labels)
        start, stop = slabs[labels[index]]
        offset = 0 if count <= len(labels) else number // len(labels)
        if start + offset < stop:
            found.append((index, labels[index], start + offset))
    return sorted(found)


def shown_images(inputs: Tensor, settings: Preprocessing) -> NDArray[np.uint8]:
    """Return inputs (n, C, h, w) as images again, normalisation undone, shrunk, (n, H, W, 3)."""
    import torch

    mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in (settings.mean, settings.std))
    pixels = ((inputs * std + mean) * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return np.stack([shrink(np.broadcast_to(image, (*image.shape[:2], 3))) for image in pixels])
