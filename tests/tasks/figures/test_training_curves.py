"""The training curves: what plotly.js will draw."""

import json

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tasks.figures.training_curves import training_views
from tasks.figures.views import View


def trace(view: View, name: str) -> dict[str, list[float]]:
    """Return the numbers of one trace, through JSON as the page gets them."""
    (found,) = [part for part in json.loads(json.dumps(view.data, allow_nan=False)) if part["name"] == name]
    return {axis: found[axis] for axis in "xy"}


def test_training_curves_have_a_line_per_network_and_seed() -> None:
    curves = pd.DataFrame(
        {
            "network": "small",
            "seed": [0, 0, 1],
            "epoch": [2, 1, 1],
            "loss": [0.5, 1.0, np.nan],
            "accuracy": [0.9, 0.8, 0.7],
        }
    )
    accuracy, loss = training_views(curves)
    assert trace(accuracy, "small, seed 0") == {"x": [1, 2], "y": [80, 90]}
    assert trace(loss, "small, seed 1") == {"x": [1], "y": [None]}


def test_plotly_knows_every_property() -> None:
    curves = pd.DataFrame({"network": "small", "seed": 0, "epoch": [1, 2], "loss": [1.0, 0.5], "accuracy": [0.8, 0.9]})
    for view in training_views(curves):
        go.Figure(data=view.data, layout=view.layout)  # raises on an unknown property or a value out of range
