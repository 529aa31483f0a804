"""A network with known units for each class: one on all of its images, another on those in the middle of its order.

Images of class c < 3 have two bright pixels in colour c. Unit `c` of the first ReLU sees each (mean response 0.5).
Unit `c` of the second sees two side by side (mean 0.75); 6 of 10 images of a class have such a pair. With the `mean`
response the first alone explains all images of a class, and the second alone explains those with a pair. By distance to
the centre, images with a pair come first and fill the middle.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

Tree = dict[str, Any]  # Any: YAML
COLOURS, SIDE = 3, 8
LEARN, HELD_OUT = (6, 4), (3, 2)  # images of each class with a pair, and without


def planted(classes: int) -> nn.Sequential:
    """Return the network, with the weights that make it so; classes without a colour are never predicted."""
    first, second, last = nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, classes)
    net = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        assert second.bias is not None
        for c in range(COLOURS):
            first.weight[c, c] = 16
            second.weight[c, c, 1, 1:] = 5  # a pixel and its right neighbour
            second.bias[c] = -112
            second.weight[COLOURS + c, c, 1, 1] = 2**-10  # for the head: too weak for a unit of its own
            last.weight[c, COLOURS + c] = 2**12
        last.bias[COLOURS:] = -1
    return net


def without_relu(classes: int) -> nn.Sequential:
    """Return the network with another function in place of its ReLUs."""
    return nn.Sequential(*(nn.Sigmoid() if isinstance(part, nn.ReLU) else part for part in planted(classes)))


def images_of(label: int, pairs: int, others: int) -> NDArray[np.uint8]:
    """Return the images (n, 8, 8, 3) of a class, black for a class without a colour."""
    found = np.zeros((pairs + others, SIDE, SIDE, 3), np.uint8)
    for i, image in enumerate(found if label < COLOURS else ()):
        image[i % SIDE, [3, 4] if i < pairs else [1, 6], label] = 255
    return found


def planted_config(folder: Path, extra: tuple[int, ...] = ()) -> Tree:
    """Return a config with VEBI on the planted network, and its files; `extra` are images of black classes."""
    folder.mkdir(parents=True, exist_ok=True)
    classes = COLOURS + len(extra)
    save_file(planted(classes).state_dict(), folder / "planted.safetensors")
    for split, (pairs, others) in {"train": LEARN, "val": HELD_OUT}.items():
        counts = [(pairs, others)] * COLOURS + [(0, n) for n in extra]
        images = [images_of(label, *count) for label, count in enumerate(counts)]
        labels = np.repeat(np.arange(classes), [len(some) for some in images])
        np.savez(folder / f"{split}.npz", images=np.concatenate(images), labels=labels)
    return {
        "name": "planted",
        "store": str(folder / "store"),
        "cluster": {"kind": "serial"},
        "data": {"dots": {"source": "npz", "paths": {s: str(folder / f"{s}.npz") for s in ("train", "val")}}},
        "networks": {
            "planted": {
                "model": "tests.tasks.steps.interpretation.planted_units:planted",
                "arguments": {"classes": classes},
                "weights": str(folder / "planted.safetensors"),
            }
        },
        "interpretation": {
            "networks": ["planted"],
            "selectors": {"moderate": {}},
            "budgets": [0.2, 0.8, 1.0],
            "interpreters": {"vebi": {"response": "mean"}},
            "gallery": 1,
        },
    }
