"""Lines with points that differ without colour too, and the levels they are compared with."""

from html import escape

import numpy as np

from tasks.figures.series import COLOURS, DASHES, SYMBOLS, Floats
from tasks.figures.views import GREY, Part, as_printed, json_floats


def line(x: Floats, y: Floats, name: str, i: int, template: str) -> Part:
    """Return a line with points; colour, symbol and dash all differ from those of the other `i`.

    Parameters
    ----------
    x, y : (n,) float
    name : as the legend prints it, escaped here
    template : what is shown at a point, such as `%{y:.1f} %`
    """
    colour = COLOURS[i % len(COLOURS)]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": escape(name),
        "x": json_floats(x),
        "y": as_printed(y, template),
        "line": {"color": colour, "width": 2, "dash": DASHES[i % len(DASHES)]},
        "marker": {"color": colour, "size": 8, "symbol": SYMBOLS[i % len(SYMBOLS)]},
        "hovertemplate": template,
    }


def level(x: Floats, value: float, name: str, dash: str = "7px,4px") -> list[Part]:
    """Return a grey line at a height, a wide dash where there is one place only; nothing if unknown."""
    if not len(x) or not np.isfinite(value):
        return []
    places = np.unique(x)[[0, -1]] if len(np.unique(x)) > 1 else np.asarray(x[:1], np.float64)
    shared: Part = {
        "type": "scatter",
        "name": escape(name),
        "x": json_floats(places),
        "hoverinfo": "skip",
        "y": [round(float(value), 5)] * len(places),
    }
    if len(places) > 1:
        return [{**shared, "mode": "lines", "line": {"color": GREY, "width": 1.5, "dash": dash}}]
    return [{**shared, "mode": "markers", "marker": {"symbol": "line-ew-open", "size": 28, "color": GREY}}]
