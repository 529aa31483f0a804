"""Distance and accuracy against the budget, as the plain data and layout that plotly.js draws."""

from collections.abc import Sequence
from html import escape

import numpy as np
import pandas as pd

from tasks.figures.interpretation.budgets import (
    ACCURACIES,
    DISTANCES,
    PLAIN,
    WITHOUT,
    Series,
    nearly_all,
    reference,
    selector_series,
)
from tasks.figures.lines import line
from tasks.figures.series import COLOURS, Floats
from tasks.figures.views import GREY, Part, View, base_layout, fixed, in_percent, json_floats, light_axis

LOG_BELOW = 0.05  # smaller budgets crowd a linear axis
_AXES = {
    "agreement": "agreement with the unmodified network (%)",
    "accuracy_without": "top-1 accuracy without the units (%)",
}


def distance_views(table: pd.DataFrame) -> list[View]:
    """Draw the shape distance Phi against the budget, a view per alpha.

    Parameters
    ----------
    table : rows of one network and interpreter; columns selector, budget and, for x in 0, 05, 1,
        phi_x_mean, phi_x_std, null_x_mean, radians

    Returns
    -------
    views with any value of a selector; the first one where none has
    """
    return _with_values([_distance_view(table, suffix, label) for suffix, label in DISTANCES.items()])


def accuracy_views(table: pd.DataFrame) -> list[View]:
    """Draw accuracy with reconstructed maps against the budget: top-1, top-5, agreement; for units without them.

    Parameters
    ----------
    table : rows of one network and interpreter; columns selector, budget, and accuracy, accuracy_top5 and
        agreement or accuracy_without with _mean and _std, accuracy_plain_mean, accuracy_plain_top5_mean, shares 0..1

    Returns
    -------
    views with any value of a selector; the first one where none has
    """
    return _with_values([_accuracy_view(table, measure, label) for measure, label in (ACCURACIES | WITHOUT).items()])


def _distance_view(table: pd.DataFrame, suffix: str, label: str) -> View:
    """Return the lines of the selectors, the level at 95 % of the data, the null distance and its half."""
    lines = selector_series(table, f"phi_{suffix}")
    budget, null = reference(table, f"null_{suffix}")
    data = _lines(lines, 1.0, "%{y:.3f} rad")
    data += _level(table, f"phi_{suffix}", 1.0, "%{y:.3f} rad")
    data += _reference(budget, null, "null distance", "7px,4px", "%{y:.3f} rad")
    data += _reference(budget, null / 2, "half of the null", "2px,3px", "%{y:.3f} rad")
    alt = f"Shape distance in radians against budget, {label}. {_in_words(lines, 1.0, 'rad', 3)}"
    if len(null):
        alt += f" The null distance lies between {fixed(null.min(), 3)} and {fixed(null.max(), 3)} rad."
    return View(label, alt, data, _layout(table["budget"], "shape distance Φ (rad)", from_zero=True))


def _accuracy_view(table: pd.DataFrame, measure: str, label: str) -> View:
    """Return the lines of the selectors, the level at 95 % of the data and the unmodified network's accuracy."""
    lines = selector_series(table, measure)
    data = _lines(lines, 100.0, "%{y:.1f} %") + _level(table, measure, 100.0, "%{y:.1f} %")
    with_maps = "" if measure in WITHOUT else " with reconstructed maps"
    alt = f"{label}{with_maps} in percent against budget. {_in_words(lines, 100.0, '%', 1)}"
    if measure in PLAIN:
        budget, plain = reference(table, PLAIN[measure])
        data += _reference(budget, 100 * plain, "unmodified network", "7px,4px", "%{y:.1f} %")
        alt += f" The unmodified network reaches {in_percent(plain.mean())} %." if len(plain) else ""
    title = _AXES.get(measure, f"{label} accuracy (%)")
    return View(label, alt, data, _layout(table["budget"], title))


def _lines(selectors: Sequence[Series], scale: float, template: str) -> list[Part]:
    """Return the selectors' bands first, so that they lie below the lines."""
    bands: list[Part] = []
    traces: list[Part] = []
    for i, series in enumerate(selectors):
        name = escape(series.name)
        budget, low, high = series.band()
        if len(budget):
            bands.append(_band(budget, scale * low, scale * high, name, i))
        trace = {
            **line(100 * series.budget, scale * series.mean, series.name, i, template + "%{text}"),
            "text": [f" ± {scale * s:.3g}" if s > 0 else "" for s in series.std],
            "legendgroup": name,
        }
        traces.append(trace)
    return [*bands, *traces]


def _band(budget: Floats, low: Floats, high: Floats, name: str, i: int) -> Part:
    """Return the area between mean - std and mean + std: upper edge forth, lower edge back."""
    return {
        "type": "scatter",
        "mode": "lines",
        "name": f"{name} ± 1 std",
        "x": json_floats(100 * np.concatenate([budget, budget[::-1]])),
        "y": json_floats(np.concatenate([high, low[::-1]])),
        "fill": "toself",
        "fillcolor": COLOURS[i % len(COLOURS)],
        "opacity": 0.18,
        "line": {"width": 0},
        "hoverinfo": "skip",
        "legendgroup": name,
        "showlegend": False,
    }


def _reference(budget: Floats, value: Floats, name: str, dash: str, template: str) -> list[Part]:
    """Return a grey dashed line, or a wide dash where there is one budget only; nothing without values."""
    if not len(budget):
        return []
    shared: Part = {
        "type": "scatter",
        "name": name,
        "x": json_floats(100 * budget),
        "y": json_floats(value),
        "hovertemplate": template,
        "line": {"color": GREY, "width": 1.5, "dash": dash},
    }
    if len(budget) > 1:
        return [{**shared, "mode": "lines"}]
    return [{**shared, "mode": "markers", "marker": {"symbol": "line-ew-open", "size": 28, "color": GREY}}]


def _level(table: pd.DataFrame, measure: str, scale: float, template: str) -> list[Part]:
    """Return a grey line at the mean over selectors with 95 % of the data, over all budgets; nothing without it."""
    level, budget = nearly_all(table, measure), np.unique(table["budget"].to_numpy(np.float64))
    known = budget if np.isfinite(level) else budget[:0]
    return _reference(known, np.full(len(known), scale * level), "95 % of the data", "10px,3px,2px,3px", template)


def _layout(budgets: pd.Series, title: str, *, from_zero: bool = False) -> Part:
    """Return the layout of a figure over budgets; small ones are on a logarithmic axis with a tick each."""
    percent = np.unique(100 * budgets.to_numpy(np.float64))
    crowded = len(percent) > 0 and percent[0] < 100 * LOG_BELOW
    at_budgets: Part = {
        "type": "log",
        "tickmode": "array",
        "tickvals": percent.tolist(),
        "ticktext": [f"{x:g} %" for x in percent],
    }
    axis = light_axis("budget (% of each class)") | {"ticksuffix": " %", "hoverformat": "~g"}
    layout = base_layout(title) | {"xaxis": axis | at_budgets if crowded else axis}
    return layout | {"yaxis": light_axis(title) | {"rangemode": "tozero"}} if from_zero else layout


def _in_words(selectors: Sequence[Series], scale: float, unit: str, digits: int) -> str:
    """Name each line's first and last known value."""
    sentences = []
    for series in selectors:
        ends = np.flatnonzero(np.isfinite(series.mean))[[0, -1]] if np.isfinite(series.mean).any() else ()
        said = [f"{fixed(scale * series.mean[k], digits)} {unit} at {100 * series.budget[k]:g} %" for k in ends]
        sentences.append(f"{series.name}: {' to '.join(dict.fromkeys(said)) or 'no value'}.")
    return " ".join(sentences)


def _with_values(views: list[View]) -> list[View]:
    """Drop views without any number in a line of a selector; where none has one, the first stays."""
    drawn = [view for view in views if any(_has_values(trace) for trace in view.data if "legendgroup" in trace)]
    return drawn or views[:1]


def _has_values(trace: Part) -> bool:
    """Whether any y is a number."""
    y = trace["y"]
    return isinstance(y, list) and any(value is not None for value in y)
