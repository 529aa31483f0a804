"""Accuracy and loss by epoch of retraining the decomposed network."""

import numpy as np
import pandas as pd

from tasks.figures.lines import level, line
from tasks.figures.series import Floats
from tasks.figures.views import Part, View, base_layout, in_percent, whole_axis

SCOPES = {"head": "head alone", "network": "whole network"}


def retraining_views(rows: pd.DataFrame, a_full: float) -> list[View]:
    """Draw accuracy and loss by epoch, a line per scope, the full head dashed.

    Parameters
    ----------
    rows : of one network and seed: scope, epoch (0 before), accuracy (0..1), loss (NaN where unknown)
    a_full : accuracy of the full head, 0..1
    """
    epochs = rows["epoch"].to_numpy(np.float64)
    views = [_by_epoch(rows, "accuracy", "accuracy", 100.0, "%{y:.2f} %")]
    views[0].data.extend(level(epochs, 100 * a_full, f"full head, {in_percent(a_full)} %"))
    if np.isfinite(rows["loss"].astype(float)).any():
        views.append(_by_epoch(rows, "loss", "training loss", 1.0, "%{y:.4g}"))
    return views


def curve_of(rows: pd.DataFrame, scope: str, column: str) -> tuple[Floats, Floats]:
    """Return epochs (n,) ascending and values (n,) of one scope, known values only."""
    part = rows[(rows["scope"] == scope) & np.isfinite(rows[column].astype(float))].sort_values("epoch", kind="stable")
    return part["epoch"].to_numpy(np.float64), part[column].to_numpy(np.float64)


def _by_epoch(rows: pd.DataFrame, column: str, title: str, scale: float, template: str) -> View:
    """Return a line per scope."""
    data: list[Part] = []
    words = []
    for i, scope in enumerate(dict.fromkeys(str(s) for s in rows["scope"])):
        epochs, values = curve_of(rows, scope, column)
        if not len(epochs):
            continue
        name = SCOPES.get(scope, scope)
        data.append({**line(epochs, np.round(scale * values, 5), name, i, template), "showlegend": True})
        unit = " %" if scale == 100 else ""
        words.append(f"{name} from {scale * values[0]:.4g}{unit} to {scale * values[-1]:.4g}{unit}")
    label = f"{title} (%)" if scale == 100 else f"{title} (nats)"
    layout = base_layout(label) | {"xaxis": whole_axis("epoch", rows["epoch"])}
    return View(column, f"{title} of the decomposed network by epoch of retraining: {'; '.join(words)}.", data, layout)
