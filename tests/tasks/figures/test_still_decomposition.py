"""Still figures of the decomposition question: PNG files that show the difference they are to show."""

import io
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib import image as matplotlib_image

from tasks.figures.index_histogram import CHOSEN, OTHER, Histogram
from tasks.figures.method_bars import COLOURS_OF, HIGHLIGHT
from tasks.figures.overlap_map import Overlap
from tasks.figures.series import COLOURS
from tasks.figures.still_decomposition import ablation_plot, against_depth, control_plot, grid_surface, retraining_plot
from tasks.figures.still_sets import coverage_plot, feature_map_plot, histogram_plot, overlap_plot, sample_need_plot

GRID = pd.DataFrame({"k1": ["1", "1", "5", "5"], "k2": [1, 5, 1, 5], "accuracy": [0.5, 0.6, 0.55, 0.9]})
CONTROLS = pd.DataFrame({"method": ["histogram", "$x"], "k": 5, "draws": [1, 20], "accuracy": [0.9, 0.4]})
CONTROLS = CONTROLS.assign(accuracy_std=[0.0, 0.05])
ABLATION = pd.DataFrame({"noise": "zero", "scope": "label", "which": ["influential", "equal-size", "others"]})
ABLATION = ABLATION.assign(draws=5, accuracy=[0.4, 0.8, 0.7], accuracy_std=0.01)
RETRAINING = pd.DataFrame({"scope": "head", "epoch": [0, 1], "accuracy": [0.8, 0.9], "loss": np.nan})
NETWORKS = pd.DataFrame({"network": ["a", "b"], "seed": 0, "model": ["m1", "m2"], "depth": [10, 20], "n_classes": 3})
NETWORKS = NETWORKS.assign(ratio=[0.9, 0.95])
SAMPLES = pd.DataFrame({"n_images": [1, 10], "overlap": [0.5, 0.9], "accuracy": [0.6, 0.8]})
COVERAGE = pd.DataFrame({"class_name": ["$a", "_b"], "own_top_share": 0.7, "l1_share": [0.5, 0.4]})
COVERAGE = COVERAGE.assign(histogram_share=0.8, logit_share=np.nan)
HISTOGRAM = Histogram("n", 0, "$c", np.array([0.2, 0.5, 0.3]), np.array([1]))
OVERLAP = Overlap("n", 0, ("$a", "_b"), np.array([[1.0, 0.4], [0.4, 1.0]]))


def pixels_of(png: bytes, colour: str) -> int:
    """Count the pixels of exactly this colour."""
    picture = np.rint(matplotlib_image.imread(io.BytesIO(png))[..., :3] * 255).astype(int)
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((picture == rgb).all(axis=2).sum())


@pytest.mark.parametrize(
    ("draw", "colours"),
    [
        (lambda: control_plot(CONTROLS, 0.95, k=5, title="$", dpi=50), (HIGHLIGHT,)),
        (lambda: ablation_plot(ABLATION, 0.95, scope="label", title="$", dpi=50), tuple(COLOURS_OF.values())),
        (lambda: retraining_plot(RETRAINING, 0.95, title="$", dpi=50), (COLOURS[0],)),
        (lambda: against_depth(NETWORKS, title="$", dpi=50), (COLOURS[0],)),
        (lambda: sample_need_plot(SAMPLES, title="$", dpi=50), COLOURS[:2]),
        (lambda: coverage_plot(COVERAGE, title="$", dpi=50), COLOURS[:3]),
        (lambda: histogram_plot(HISTOGRAM, title="$", dpi=50), (CHOSEN, OTHER)),
        (lambda: overlap_plot(OVERLAP, title="$", dpi=50), ("#d9dee6",)),
        (lambda: grid_surface(GRID, title="$", dpi=50), ()),
    ],
)
def test_what_is_drawn_has_its_colours_and_is_reproducible(draw: Callable[[], bytes], colours: tuple[str, ...]) -> None:
    png = draw()
    for colour in colours:
        assert pixels_of(png, colour) > 5
    assert png == draw()


def test_a_longer_bar_has_more_pixels() -> None:
    shorter = CONTROLS.assign(accuracy=[0.45, 0.4])
    long, short = (control_plot(rows, 1.0, k=5, dpi=50) for rows in (CONTROLS, shorter))
    assert pixels_of(long, HIGHLIGHT) == pytest.approx(2 * pixels_of(short, HIGHLIGHT), rel=0.1)


def test_a_grid_of_one_row_spans_no_surface_but_is_drawn() -> None:
    assert grid_surface(GRID[GRID["k2"] == 1], dpi=50) != grid_surface(GRID, dpi=50)
    assert pixels_of(grid_surface(GRID[GRID["k2"] == 1], dpi=50), COLOURS[0]) > 5


def test_feature_maps_stand_in_rows() -> None:
    red, blue = (np.full((8, 8, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    png = feature_map_plot([("$a", (red, blue)), ("b", (blue, blue))], ("image", "all"), dpi=50)
    assert pixels_of(png, "#0000ff") == pytest.approx(3 * pixels_of(png, "#ff0000"), rel=0.1)
    with pytest.raises(ValueError, match="rows b: expected 2 pictures, image, all"):
        feature_map_plot([("b", (red,))], ("image", "all"))


def test_what_the_table_has_not_is_named() -> None:
    with pytest.raises(ValueError, match="k = 7: the table has 5"):
        control_plot(CONTROLS, 0.9, k=7)
    with pytest.raises(ValueError, match="scope 'union': the table has label"):
        ablation_plot(ABLATION, 0.9, scope="union")
