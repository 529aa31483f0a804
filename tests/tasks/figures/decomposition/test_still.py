"""Still figures of the decomposition question: PNG files that show the difference they are to show."""

import io
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib import image as matplotlib_image

from tasks.figures.decomposition.index_histogram import CHOSEN, OTHER, Histogram
from tasks.figures.decomposition.method_bars import COLOURS_OF, HIGHLIGHT
from tasks.figures.decomposition.overlap_map import Overlap
from tasks.figures.decomposition.still import ablation_plot, against_depth, control_plot, grid_surface, retraining_plot
from tasks.figures.decomposition.still_sets import (
    coverage_plot,
    feature_map_plot,
    histogram_plot,
    overlap_plot,
    sample_need_plot,
)
from tasks.figures.series import COLOURS

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


LONG = "networks/a-name-of-sixty-characters-that-fits-nowhere-at-all-W"


@pytest.mark.parametrize(("scale", "n_classes", "name"), [(0.0, 1, "n"), (0.0, 1000, LONG), (1.0, 1, "W" * 60)])
def test_stills_have_room_for_their_axes(scale: float, n_classes: int, name: str) -> None:
    def scaled(rows: pd.DataFrame) -> pd.DataFrame:
        shares = [c for c in rows if c in ("accuracy", "accuracy_std", "ratio", "overlap", "own_top_share", "l1_share")]
        return rows.assign(**{column: scale * rows[column] for column in shares})

    names = tuple(f"{i} {name}" for i in range(n_classes))
    coverage = pd.concat([COVERAGE[:1]] * n_classes).assign(class_name=names)
    families = pd.concat([NETWORKS.assign(model=f"{chr(97 + i)}{name}1") for i in range(20)])
    histogram = Histogram("n", 0, name, scale * np.ones(2048), np.arange(50))
    overlap = Overlap("n", 0, names, scale * np.eye(n_classes))
    picture = np.zeros((8, 8, 3), np.uint8)
    controls, ablation, title = scaled(CONTROLS.assign(method=["histogram", name])), scaled(ABLATION), f"{name}, seed 0"
    draw: list[Callable[[], bytes]] = [  # a layout without room for its axes warns, and warnings are errors
        lambda: control_plot(controls, 0.95 * scale, k=5, title=title, dpi=50),
        lambda: ablation_plot(ablation, 0.95 * scale, scope="label", title=title, dpi=50),
        lambda: ablation_plot(ablation[:1], 0.95 * scale, scope="label", title=title, dpi=50),
        lambda: retraining_plot(scaled(RETRAINING), 0.95 * scale, title=title, dpi=50),
        lambda: against_depth(scaled(families), title=title, dpi=50),
        lambda: grid_surface(scaled(GRID), title=title, dpi=50),
        lambda: sample_need_plot(scaled(SAMPLES), title=title, dpi=50),
        lambda: coverage_plot(scaled(coverage), title=title, dpi=50),
        lambda: histogram_plot(histogram, title=title, dpi=50),
        lambda: overlap_plot(overlap, title=title, dpi=50),
        lambda: feature_map_plot([(name, 4 * (picture,))] * 4, ("image", "all", "other", name), dpi=50),
    ]
    for each in draw:
        assert each().startswith(b"\x89PNG")


def test_a_title_too_long_for_a_line_goes_on_in_the_next() -> None:
    short, long = (retraining_plot(RETRAINING, 0.95, title=title, dpi=50) for title in ("n, seed 0", LONG + ", seed 0"))
    heights = [matplotlib_image.imread(io.BytesIO(png)).shape[0] for png in (short, long)]
    assert heights == [200, 210]


def test_bars_without_a_control_are_drawn() -> None:
    alone = ABLATION[ABLATION["which"] != "equal-size"]
    png = ablation_plot(alone, 0.95, scope="label", dpi=50)
    assert pixels_of(png, COLOURS_OF["equal-size"]) == 0
    assert pixels_of(png, COLOURS_OF["others"]) > 5


def test_feature_maps_stand_in_rows() -> None:
    red, blue = (np.full((8, 8, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    png = feature_map_plot([("$a", (red, blue)), ("b", (blue, blue))], ("image", "all"), dpi=50)
    assert pixels_of(png, "#0000ff") == pytest.approx(3 * pixels_of(png, "#ff0000"), rel=0.1)
    with pytest.raises(ValueError, match="rows b: expected 2 pictures, image, all"):
        feature_map_plot([("b", (red,))], ("image", "all"))


def test_what_the_table_has_not_is_named() -> None:
    with pytest.raises(ValueError, match="k: expected one of 5, found 7"):
        control_plot(CONTROLS, 0.9, k=7)
    with pytest.raises(ValueError, match="scope: expected one of label, found 'union'"):
        ablation_plot(ABLATION, 0.9, scope="union")
