"""Ridge plots: what is drawn where, and what is said of it."""

from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest

from tasks.figures.tracing.ridges import HIGHLIGHT, OTHER, OVERLAP, POINTS, Ridges, ridge_view

GRID = np.linspace(-1, 1, 201)


def triangle(centre: float, width: float) -> np.ndarray:
    """Return a density over a base of twice the width."""
    return np.maximum(0, 1 - np.abs(GRID - centre) / width) / width


RIDGES = Ridges(
    grid=GRID,
    classes=("three", "five", "<b>"),
    probabilities=np.array([0.7, 0.25, 0.05]),
    densities=np.array([triangle(0.0, 0.2), triangle(0.3, 0.1), np.zeros(201)]),
    totals=np.array([12.34, 5.0, 0.0]),
    highlighted=1,
    bandwidth="0.1",
)


def test_ridges_stand_one_below_the_other_and_keep_their_relative_heights() -> None:
    view = ridge_view("fc", RIDGES)
    tops = [max(trace["y"]) for trace in view.data]  # type: ignore[call-overload]  # lists of floats
    # The second density is twice as high as the first, and the highest: OVERLAP above its place, 1.
    np.testing.assert_allclose(tops, [2 + OVERLAP / 2, 1 + OVERLAP, 0], atol=1e-3)
    x, height = RIDGES.curve(1)
    assert len(x) == POINTS + 1  # the peak besides
    np.testing.assert_allclose(x[np.argmax(height)], 0.3)
    np.testing.assert_allclose(height, OVERLAP / 10 * np.interp(x, GRID, RIDGES.densities[1]), atol=1e-12)


def test_a_peak_narrower_than_the_points_is_not_cut() -> None:
    grid = np.linspace(-1, 1, 2001)
    spike = np.where(np.arange(2001) == 1501, 1000.0, 0.0)
    ridges = replace(RIDGES, grid=grid, densities=np.stack([spike, spike * 0 + 1, spike * 0]))
    assert ridges.curve(0)[1].max() == OVERLAP


def test_range_is_symmetric_around_zero_and_fits() -> None:
    assert RIDGES.reach() == pytest.approx(1.05 * 0.39)  # the last point whose density exceeds a thousandth
    axis = go.Figure(layout=ridge_view("fc", RIDGES).layout).layout.xaxis
    assert axis.range == (-RIDGES.reach(), RIDGES.reach())
    assert replace(RIDGES, densities=np.zeros((3, 201))).reach() == 1.0


def test_the_predicted_class_differs_by_colour_weight_and_mark() -> None:
    figure = go.Figure(data=ridge_view("fc", RIDGES).data, layout=ridge_view("fc", RIDGES).layout)
    assert [trace.line.color for trace in figure.data] == [OTHER, HIGHLIGHT, OTHER]
    assert list(figure.layout.yaxis.ticktext) == ["three 70.0 %", "<b>▶ five 25.0 %</b>", "&lt;b&gt; 5.0 %"]
    assert [note.text for note in figure.layout.annotations[:3]] == ["12.3", "<b>5.00</b>", "0"]
    assert list(figure.layout.yaxis.tickvals) == [note.y for note in figure.layout.annotations[:3]] == [2, 1, 0]


def test_words_name_every_class_with_total_and_mean() -> None:
    means = RIDGES.mean_cosines()
    np.testing.assert_allclose(means[:2], [0.0, 0.3], atol=1e-12)
    assert np.isnan(means[2])
    assert ridge_view("fc", RIDGES).alt == (
        "Ridge plot of layer fc, most probable class first. three (70.0 %): total weight 12.3, mean cosine +0.000; "
        "five (predicted, 25.0 %): total weight 5.00, mean cosine +0.300; <b> (5.0 %): total weight 0, no updates."
    )


def test_a_layer_without_ridges_says_so() -> None:
    view = ridge_view("<fc>", None)
    assert view.alt == "There is no ridge plot of layer <fc>."
    assert "&lt;fc&gt;" in str(go.Figure(data=view.data, layout=view.layout).layout.annotations[0].text)


def test_shapes_that_do_not_agree_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected a row for each of 3 classes and 201 grid points"):
        replace(RIDGES, totals=np.ones(2))
    with pytest.raises(ValueError, match="highlighted: expected a row of 3 classes, found 3"):
        replace(RIDGES, highlighted=3)
