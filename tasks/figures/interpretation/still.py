"""Still figures of the interpretation question for a README or a paper: PNG bytes."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tasks.figures.interpretation.budgets import (
    ACCURACIES,
    DISTANCES,
    PLAIN,
    WITHOUT,
    Series,
    reference,
    selector_series,
)
from tasks.figures.series import COLOURS
from tasks.figures.still import MARKERS, STYLES, axes_of, encode
from tasks.figures.views import GREY


def distance_against_budget(table: pd.DataFrame, *, alpha: float = 0.0, title: str = "", dpi: int = 150) -> bytes:
    """Draw the shape distance Phi against the budget, with the null distance.

    Parameters
    ----------
    table : rows of one network and interpreter, as `against_budget.distance_views` takes them
    alpha : 0, 0.5 or 1
    title : above the picture
    dpi : dots per inch of the 6.4 x 4 inch picture

    Returns
    -------
    a PNG file
    """
    suffix = f"{alpha:g}".replace(".", "")
    figure, axes = _axes(title, f"shape distance $\\Phi$ (rad), {DISTANCES[suffix]}")
    _draw(axes, selector_series(table, f"phi_{suffix}"), 1.0)
    budget, null = reference(table, f"null_{suffix}")
    axes.plot(100 * budget, null, color=GREY, linestyle="--", marker="_", label="null distance")
    return _png(figure, axes, dpi)


def accuracy_against_budget(
    table: pd.DataFrame, *, measure: str = "accuracy", title: str = "", dpi: int = 150
) -> bytes:
    """Draw accuracy with reconstructed maps against the budget, with the unmodified network's.

    Parameters
    ----------
    table : rows of one network and interpreter, as `against_budget.accuracy_views` takes them
    measure : "accuracy", "accuracy_top5", "agreement" or "accuracy_without"
    title : above the picture
    dpi : dots per inch of the 6.4 x 4 inch picture

    Returns
    -------
    a PNG file
    """
    label = WITHOUT[measure] if measure in WITHOUT else f"{ACCURACIES[measure]} with reconstructed maps"
    figure, axes = _axes(title, f"{label} (%)")
    _draw(axes, selector_series(table, measure), 100.0)
    if measure in PLAIN:
        budget, plain = reference(table, PLAIN[measure])
        axes.plot(100 * budget, 100 * plain, color=GREY, linestyle="--", marker="_", label="unmodified network")
    return _png(figure, axes, dpi)


def _axes(title: str, label: str) -> tuple[Figure, Axes]:
    """Return axes over budgets."""
    figure, axes = axes_of(title, 4.0)
    axes.set_xlabel("budget (% of each class)")
    axes.set_ylabel(label)
    axes.grid(color="#e6e9ee")
    return figure, axes


def _draw(axes: Axes, lines: list[Series], scale: float) -> None:
    """Draw the selectors' lines and their bands."""
    for i, line in enumerate(lines):
        colour, marker, style = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], STYLES[i % len(STYLES)]
        # A leading underscore would hide the line from the legend, a dollar sign would start a formula.
        label = line.name.replace("$", r"\$").lstrip("_")
        axes.plot(100 * line.budget, scale * line.mean, color=colour, marker=marker, linestyle=style, label=label)
        budget, low, high = line.band()
        axes.fill_between(100 * budget, scale * low, scale * high, color=colour, alpha=0.18, linewidth=0)


def _png(figure: Figure, axes: Axes, dpi: int) -> bytes:
    """Finish the axes and return the file."""
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0] if np.isfinite(axes.get_ylim()[0]) else 0.0))
    axes.legend(frameon=False)
    return encode(figure, dpi)
