"""Still figures of the tracing question: PNG files with a pixel of each colour."""

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib import image as matplotlib_image

from tasks.figures.series import COLOURS
from tasks.figures.tracing.class_share import OTHERS
from tasks.figures.tracing.ridges import Ridges
from tasks.figures.tracing.still import class_share_plot, ridge_plot

SHARES = pd.DataFrame(
    {
        "layer": "fc",
        "epoch": [i // 14 for i in range(28)],
        "label": [i % 14 for i in range(28)],
        "class_name": [f"${i % 14}_" for i in range(28)],
        "gamma": [0.6 - 0.05 * (i % 14) for i in range(28)],
    }
)


def pixels_of(png: bytes, colour: str) -> int:
    """Count the pixels of exactly this colour."""
    picture = np.rint(matplotlib_image.imread(io.BytesIO(png))[..., :3] * 255).astype(int)
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((picture == rgb).all(axis=2).sum())


def bells(highlighted: int) -> Ridges:
    """Two bell curves."""
    grid = np.linspace(-1, 1, 101)
    densities = np.exp(-50 * (grid - np.array([[0.0], [0.4]])) ** 2)
    return Ridges(grid, ("a$b", "_c"), np.array([0.9, 0.1]), densities, np.array([3.0, 1.0]), highlighted, "0.1")


def blueness(png: bytes) -> float:
    """Return the mean height of the pixels that are much bluer than red, 0 at the top."""
    picture = matplotlib_image.imread(io.BytesIO(png))[..., :3]
    return float(np.nonzero(picture[..., 2] - picture[..., 0] > 0.4)[0].mean() / len(picture))


def test_the_predicted_class_is_the_blue_one_and_the_picture_is_reproducible() -> None:
    first, second = ridge_plot(bells(0), title="cost in $", dpi=50), ridge_plot(bells(1), dpi=50)
    assert blueness(first) < 0.5 < blueness(second)
    assert first == ridge_plot(bells(0), title="cost in $", dpi=50)


def test_class_shares_show_classes_and_others() -> None:
    png = class_share_plot(SHARES, "fc", title="$x$", dpi=50)
    for colour in (COLOURS[0], COLOURS[1], OTHERS):
        assert pixels_of(png, colour) > 20
    assert png == class_share_plot(SHARES, "fc", title="$x$", dpi=50)


def test_an_unknown_layer_is_named() -> None:
    with pytest.raises(ValueError, match="layer: expected one of fc, found 'conv'"):
        class_share_plot(SHARES, "conv")
