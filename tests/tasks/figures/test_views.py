"""Numbers, names and choices of places in figures."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from tasks.figures.decomposition.retraining_curves import retraining_views
from tasks.figures.decomposition.still import retraining_plot
from tasks.figures.tracing.class_share import class_share_views
from tasks.figures.tracing.still import class_share_plot
from tasks.figures.training_curves import training_views
from tasks.figures.views import as_printed, compact, fixed, shorten, shorten_path, spread_out, whole_axis, whole_step


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0"),
        (float("nan"), "–"),
        (0.01234, "0.0123"),
        (0.9996, "1.00"),
        (-4.567, "-4.57"),
        (43.04, "43.0"),
        (999.6, "1,000"),
        (12345.0, "12,300"),
        (1.23e-5, "1.2e-05"),
        (2.5e7, "2.5e+07"),
    ],
)
def test_compact_keeps_three_digits(value: float, expected: str) -> None:
    assert compact(value) == expected


def test_names_are_cut_with_an_ellipsis() -> None:
    assert shorten("abcdef", 6) == "abcdef"
    assert shorten("abcdefg", 6) == "abcde…"
    assert shorten_path("a.b.cd", 6) == "a.b.cd"
    assert shorten_path("a.b.cde", 6) == "…b.cde"


def test_chosen_places_are_spread_and_hold_both_ends() -> None:
    assert spread_out(3, 8) == [0, 1, 2]
    assert spread_out(16, 8) == [0, 2, 4, 6, 9, 11, 13, 15]
    assert spread_out(9, 5) == [0, 2, 4, 6, 8]
    assert spread_out(0, 5) == []


@pytest.mark.parametrize(
    ("values", "step"),
    [
        *[([], 1), ([1], 1), ([1, 2], 1), ([1, 3.0], 1), (range(11), 1), (range(12), 2), (range(1, 31), 5)],
        *[([0, 100], 10), ([0, 101], 20), ([float("nan"), 5, 9], 1), ([1, 90_000], 10_000)],
    ],
)
def test_marks_of_whole_numbers(values: list[float], step: int) -> None:
    assert whole_step(values) == step
    axis = whole_axis("epoch", values)
    assert (axis["tickmode"], axis["tick0"], axis["dtick"], axis["tickformat"]) == ("linear", 0, step, "d")


@pytest.mark.parametrize("n_epochs", [1, 2, 3, 10, 40])
def test_every_axis_of_epochs_has_whole_marks(n_epochs: int) -> None:
    epoch = list(range(1, n_epochs + 1))
    curves = pd.DataFrame({"network": "a", "seed": 0, "epoch": epoch, "loss": 0.5, "accuracy": 0.25})
    shares = pd.DataFrame({"layer": "fc", "epoch": epoch, "label": 0, "class_name": "x", "gamma": 0.5})
    retrained = curves.assign(scope="head")
    for view in [*training_views(curves), *class_share_views(shares), *retraining_views(retrained, 0.5)]:
        axis = view.layout["xaxis"]
        assert isinstance(axis, dict)
        assert axis["dtick"] == {1: 1, 2: 1, 3: 1, 10: 1, 40: 5}[n_epochs]


@pytest.mark.parametrize("n_epochs", [1, 2, 3, 7])
def test_still_pictures_have_whole_epochs(n_epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    marks: list[list[float]] = []

    def keep(figure: Figure, dpi: int) -> bytes:
        low, high = figure.axes[0].get_xlim()
        marks.append([x for x in figure.axes[0].get_xticks() if low <= x <= high])
        return b""

    monkeypatch.setattr("tasks.figures.tracing.still.encode", keep)
    monkeypatch.setattr("tasks.figures.decomposition.still.encode", keep)
    epoch = list(range(1, n_epochs + 1))
    class_share_plot(pd.DataFrame({"layer": "fc", "epoch": epoch, "label": 0, "class_name": "x", "gamma": 0.5}), "fc")
    retraining_plot(pd.DataFrame({"scope": "head", "epoch": epoch, "accuracy": 0.5, "loss": 0.5}), 0.5)
    assert marks == [epoch, epoch]


@pytest.mark.parametrize("digits", [1, 2])
def test_plotly_prints_what_tables_print(digits: int) -> None:
    values = np.array([98.05, 97.15, 0.05, 100 * 0.9805, -98.05, 50.0, 98.046, 12.345, 0.0, np.nan])
    given = as_printed(values, f"%{{y:.{digits}f}} %")
    for value, number in zip(values.tolist(), given, strict=True):
        if number is None:
            assert np.isnan(value)
            continue
        # d3 rounds the binary value as JavaScript's toFixed does: exactly, a half up.
        assert f"{Decimal(number):.{digits}f}" == fixed(value, digits)
        assert number == pytest.approx(value, abs=2e-9)
    assert as_printed(values, "%{y:.4g}")[:3] == [98.05, 97.15, 0.05]
