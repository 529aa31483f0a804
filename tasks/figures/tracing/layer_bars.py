"""The parts of each layer's representation and how class-specific they are: a row per layer."""

import numpy as np
import pandas as pd

from tasks.figures.layer_names import MOST_TWO_LINES, axis_names
from tasks.figures.series import COLOURS
from tasks.figures.views import (
    INK,
    Part,
    View,
    base_layout,
    fixed,
    in_percent,
    json_floats,
    light_axis,
    spread_out,
)

MAX_LAYERS = 40
PARTS = {
    "init_share": "initial weights",
    "examples_share": "examples",
    "decay_share": "weight decay",
    "unrecorded_share": "steps not recorded",
}
FILLS = {
    "init_share": ("#8a93a3", ""),
    "examples_share": (COLOURS[0], ""),
    "decay_share": (COLOURS[1], "/"),
    "unrecorded_share": (COLOURS[3], "x"),
}
AGREEMENTS = {"agreement_1": ("@1", "circle"), "agreement_10": ("@10", "square-open")}
MAX_NAME = 18


def layer_views(rows: pd.DataFrame) -> list[View]:
    """Draw the parts of ||z||^2 and the class agreement by layer.

    Parameters
    ----------
    rows : of one network and seed, in order of depth: layer and, where known, init_share, decay_share,
        examples_share, unrecorded_share (parts of ||z||^2), agreement_1, agreement_10 (0..1)
    """
    shown = rows.iloc[spread_out(len(rows), MAX_LAYERS)]
    return [_parts(shown), _agreement(shown)]


def _parts(rows: pd.DataFrame) -> View:
    """Return stacked bars of the parts, those below zero to the left."""
    data: list[Part] = []
    for column, name in PARTS.items():
        values = 100 * _numbers(rows, column)
        if not np.nan_to_num(values).any():
            continue  # unknown or without any part in it
        colour, pattern = FILLS[column]
        hatched = {"pattern": {"shape": pattern, "bgcolor": colour, "fgcolor": "#ffffff"}} if pattern else {}
        bar: Part = {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": _places(rows),
            "x": json_floats(values),
            "marker": {"color": colour, **hatched},
            "hovertemplate": "%{x:.2f} %",
        }
        data.append(bar)
    words = "; ".join(
        f"{row['layer']}: "
        + ", ".join(f"{name} {in_percent(row[c])} %" for c, name in PARTS.items() if c in row and np.isfinite(row[c]))
        for _, row in rows.iterrows()
    )
    layout = _layout(rows, "part of ‖z‖² (%)", {}) | {"barmode": "relative", "bargap": 0.3}
    return View("parts of ‖z‖²", f"Parts of the squared norm by layer. {words}.", data, layout)


def _agreement(rows: pd.DataFrame) -> View:
    """Return dots, one line per number of examples looked at."""
    data: list[Part] = []
    words = []
    for i, (column, (name, symbol)) in enumerate(AGREEMENTS.items()):
        values = 100 * _numbers(rows, column)
        trace: Part = {
            "type": "scatter",
            "mode": "lines+markers",
            "name": f"agreement {name}",
            "y": _places(rows),
            "x": json_floats(values),
            "marker": {"symbol": symbol, "size": 10, "color": COLOURS[i]},
            "line": {"color": COLOURS[i], "width": 1.5},
            "hovertemplate": "%{x:.1f} %",
        }
        data.append(trace)
        finite = zip(rows["layer"][np.isfinite(values)], values[np.isfinite(values)], strict=True)
        words.append(f"{name}: " + ", ".join(f"{layer} {fixed(value, 1)} %" for layer, value in finite))
    layout = _layout(rows, "class agreement (%)", {"range": [-3, 103]})
    return View("class agreement", f"Class agreement by layer. {'. '.join(words)}.", data, layout)


def _layout(rows: pd.DataFrame, title: str, across: Part) -> Part:
    """Return layers from the top down; `across` is what else the axis of the values has."""
    return base_layout("") | {
        "height": max(400, 120 + (44 if len(rows) <= MOST_TWO_LINES else 26) * len(rows)),
        "hovermode": "y unified",
        "margin": {"l": 16, "r": 16, "t": 16, "b": 56},
        "xaxis": {**light_axis(title), "zeroline": True, "zerolinecolor": INK, **across},
        "yaxis": {
            **light_axis(""),
            "tickmode": "array",
            "tickvals": _places(rows),
            "autorange": "reversed",
            "ticktext": axis_names([str(layer) for layer in rows["layer"]], MAX_NAME),
        },
    }


def _places(rows: pd.DataFrame) -> list[int]:
    """Return a place per layer: two layers may share a name once it is cut."""
    return list(range(len(rows)))


def _numbers(rows: pd.DataFrame, column: str) -> np.ndarray:
    """Return a column, NaN throughout where there is none."""
    return rows[column].to_numpy(np.float64) if column in rows else np.full(len(rows), np.nan)
