"""Still figures: PNG files of the stated size, with a pixel of each line's colour."""

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib import image as matplotlib_image

from tasks.figures.interpretation.still import accuracy_against_budget, distance_against_budget
from tasks.figures.series import COLOURS

TABLE = pd.DataFrame(
    {
        "selector": ["random", "random", "moderate", "moderate"],
        "budget": [0.1, 1.0] * 2,
        "phi_0_mean": [0.8, 0.0, 0.7, 0.0],
        "phi_0_std": [0.05, 0.0, np.nan, np.nan],
        "phi_05_mean": np.nan,
        "null_0_mean": 1.2,
        "accuracy_mean": [0.9, 0.95, 0.91, 0.95],
        "accuracy_plain_mean": 0.97,
        "agreement_mean": [0.88, 0.93, 0.9, 0.93],
    }
)


def pixels_of(png: bytes, colour: str) -> int:
    """Count the pixels of exactly this colour."""
    picture = np.rint(matplotlib_image.imread(io.BytesIO(png))[..., :3] * 255).astype(int)
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((picture == rgb).all(axis=2).sum())


def test_distance_picture_shows_both_lines_and_is_reproducible() -> None:
    png = distance_against_budget(TABLE, title="cost in $ & <b>", dpi=50)
    assert matplotlib_image.imread(io.BytesIO(png)).shape[:2] == (200, 320)
    assert pixels_of(png, COLOURS[0]) > 20
    assert pixels_of(png, COLOURS[1]) > 20
    assert png == distance_against_budget(TABLE, title="cost in $ & <b>", dpi=50)


@pytest.mark.parametrize("measure", ["accuracy", "agreement"])
def test_accuracy_picture_shows_both_lines(measure: str) -> None:
    png = accuracy_against_budget(TABLE, measure=measure, dpi=50)
    assert pixels_of(png, COLOURS[0]) > 20
    assert pixels_of(png, COLOURS[1]) > 20


def test_a_picture_without_values_is_still_drawn() -> None:
    assert pixels_of(distance_against_budget(TABLE, alpha=0.5, dpi=50), COLOURS[2]) == 0


def test_odd_selector_names_stand_in_the_legend_as_they_are() -> None:
    assert distance_against_budget(TABLE.assign(selector="a$b$"), dpi=50).startswith(b"\x89PNG")
