"""A row of dots per class: what decomposing costs it, and how much its few features hold."""

from collections.abc import Mapping
from html import escape

import numpy as np
import pandas as pd

from tasks.figures.series import COLOURS, SYMBOLS
from tasks.figures.views import Part, View, as_printed, base_layout, in_percent, light_axis, shorten, spread_out

MAX_CLASSES = 40
MAX_NAME = 14
TEMPLATE = "%{text}: %{x:.1f} %"
ACCURACIES = {"a_full": "full head", "a_decomposed": "decomposed"}
COVERAGES = {
    "own_top_share": "l1 norm, own largest k1",
    "l1_share": "l1 norm, set of the class",
    "histogram_share": "counts, set of the class",
    "logit_share": "own logit, set of the class",
}


def class_views(classes: pd.DataFrame, coverage: pd.DataFrame) -> list[View]:
    """Draw accuracy and coverage by class; at most `MAX_CLASSES`, evenly spread in the view's order.

    Parameters
    ----------
    classes : of one network and seed: class_name, a_full, a_decomposed (0..1); the class that loses most on top
    coverage : class_name, own_top_share, l1_share, histogram_share, logit_share (0..1); the least covered on top

    Returns
    -------
    a view for each table that is not empty
    """
    views = []
    if len(classes):
        change = classes["a_decomposed"].astype(float) - classes["a_full"].astype(float)
        rows = classes.iloc[np.argsort(change.to_numpy(), kind="stable")]
        views.append(_view("accuracy", "accuracy on the class (%)", rows, ACCURACIES))
    if len(coverage):
        rows = coverage.iloc[np.argsort(coverage["l1_share"].to_numpy(np.float64), kind="stable")]
        views.append(_view("coverage", "share held by few features (%)", rows, COVERAGES))
    return views


def _view(label: str, title: str, rows: pd.DataFrame, columns: Mapping[str, str]) -> View:
    """Return the dots of some columns, classes from the top down."""
    shown = rows.iloc[spread_out(len(rows), MAX_CLASSES)]
    places = list(range(len(shown)))
    names = [str(name) for name in shown["class_name"]]
    data: list[Part] = []
    for i, (column, name) in enumerate(columns.items()):
        values = 100 * shown[column].to_numpy(np.float64)
        if not np.isfinite(values).any():
            continue
        dots: Part = {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": as_printed(values, TEMPLATE),
            "y": places,
            "marker": {"color": COLOURS[i], "size": 9, "symbol": SYMBOLS[i]},
            "showlegend": True,
            "text": [escape(class_name) for class_name in names],
            "hovertemplate": TEMPLATE,
        }
        data.append(dots)
    layout = base_layout("") | {
        "height": max(400, 150 + 20 * len(shown)),
        "hovermode": "closest",
        "margin": {"l": 16, "r": 16, "t": 16, "b": 56},
        "xaxis": light_axis(title),
        "yaxis": {
            **light_axis(""),
            "tickmode": "array",
            "tickvals": places,
            "ticktext": [escape(shorten(name, MAX_NAME)) for name in names],
            "range": [len(shown) - 0.4, -0.6],
        },
    }
    ends = dict.fromkeys((0, len(names) - 1)) if names else {}
    said = "; ".join(
        f"{names[i]}: "
        + ", ".join(
            f"{name} {in_percent(float(shown[c].iloc[i]))} %"
            for c, name in columns.items()
            if np.isfinite(float(shown[c].iloc[i]))
        )
        for i in ends
    )
    return View(label, f"{title} by class, {len(names)} classes; first and last: {said}.", data, layout)
