"""The figures with a row per layer."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from tasks.figures.tracing.layer_bars import MAX_LAYERS, layer_views

ROWS = pd.DataFrame(
    {
        "layer": ["conv", "<fc>"],
        "init_share": [0.7, 0.1],
        "decay_share": [-0.1, np.nan],
        "examples_share": [0.4, 0.9],
        "unrecorded_share": 0.0,
        "agreement_1": [0.2, 0.95],
        "agreement_10": [0.15, np.nan],
    }
)


def test_parts_are_stacked_in_percent_and_an_absent_part_is_no_bar() -> None:
    parts, _ = layer_views(ROWS)
    drawn = {str(trace["name"]): trace["x"] for trace in parts.data}
    assert list(drawn) == ["initial weights", "examples", "weight decay"]
    assert drawn["initial weights"] == pytest.approx([70.0, 10.0])
    assert drawn["weight decay"] == [-10.0, None]
    figure = go.Figure(data=parts.data, layout=parts.layout)
    assert figure.layout.barmode == "relative"
    assert list(figure.layout.yaxis.ticktext) == ["conv", "&lt;fc&gt;"]
    assert figure.layout.yaxis.autorange == "reversed"
    assert "conv: initial weights 70.0 %, examples 40.0 %, weight decay -10.0 %" in parts.alt
    assert "nan" not in parts.alt


def test_agreement_has_a_line_per_k() -> None:
    _, agreement = layer_views(ROWS)
    assert [trace["x"] for trace in agreement.data] == [[20.0, 95.0], [15.0, None]]
    assert "@1: conv 20.0 %, <fc> 95.0 %" in agreement.alt
    assert "nan" not in agreement.alt
    go.Figure(data=agreement.data, layout=agreement.layout)


def test_layers_are_capped() -> None:
    many = pd.DataFrame({"layer": [f"l{i}" for i in range(3 * MAX_LAYERS)], "init_share": 0.5})
    for view in layer_views(many):
        axis = go.Figure(data=view.data, layout=view.layout).layout.yaxis
        assert len(axis.ticktext) == MAX_LAYERS
        assert (axis.ticktext[0], axis.ticktext[-1]) == ("l0", "l119")
