"""Images for people: the choice of samples to show, and pictures from inputs of a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from configs.schema import Preprocessing
from tasks.figures.graphs import draw_graph
from tasks.figures.overlay import shrink
from tasks.graphs import picture_of, unpack_graph

if TYPE_CHECKING:
    from torch import Tensor

THUMBNAIL = 96 * 96  # pixels of a picture at most


def chosen_positions(class_ranges: Mapping[int, tuple[int, int]], count: int) -> list[tuple[int, int, int]]:
    """Return (class index, label, position) of `count` samples: the first of each class, spread over the classes."""
    labels = list(class_ranges)
    found = []
    for number in range(count):
        index = number * len(labels) // count if count <= len(labels) else number % len(labels)
        start, stop = class_ranges[labels[index]]
        offset = 0 if count <= len(labels) else number // len(labels)
        if start + offset < stop:
            found.append((index, labels[index], start + offset))
    return sorted(found)


def shown_images(inputs: Tensor, settings: Preprocessing) -> NDArray[np.uint8]:
    """Return small images (n, H, W, 3) from inputs (n, C, h, w), with the normalisation reversed; graphs are drawn."""
    import torch

    if inputs.ndim == 2:
        return np.stack([draw_graph(*picture_of(unpack_graph(vector))) for vector in inputs.numpy()])

    mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in (settings.mean, settings.std))
    pixels = ((inputs * std + mean) * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return np.stack([shrink(np.broadcast_to(image, (*image.shape[:2], 3))) for image in pixels])
