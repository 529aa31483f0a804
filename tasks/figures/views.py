"""The parts of all interactive figures: plain data and layout that plotly.js draws."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

import numpy as np

from tasks.figures.series import Floats

Part = dict[str, object]

GREY = "#5B5B5B"
INK = "#1d2430"


@dataclass(frozen=True)
class View:
    """One state of a figure: the choices above a figure switch between views.

    Attributes
    ----------
    label : text of the choice
    alt : what the figure shows, in words
    data, layout : for plotly.js; plain lists, numbers and strings, None for NaN
    """

    label: str
    alt: str
    data: list[Part]
    layout: Part


def base_layout(title: str) -> Part:
    """Return what all figures share: no zoom, which would catch the finger that scrolls a phone."""
    return {
        "height": 400,
        "autosize": True,
        "dragmode": False,
        "hovermode": "x unified",
        "margin": {"l": 64, "r": 16, "t": 16, "b": 56},
        "font": {"family": "system-ui, Liberation Sans, sans-serif", "size": 13, "color": INK},
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "yaxis": light_axis(title),
    }


def light_axis(title: str) -> Part:
    """Return an axis with light grid lines."""
    line = {"showline": True, "linecolor": "#8a93a3", "gridcolor": "#e6e9ee", "zeroline": False}
    return {"title": {"text": title, "standoff": 12}, "fixedrange": True, "automargin": True, "ticks": "outside"} | line


def whole_axis(title: str, values: Iterable[float]) -> Part:
    """Return an axis with marks at whole numbers only, however few of them `values` span."""
    return light_axis(title) | {"tickmode": "linear", "tick0": 0, "dtick": whole_step(values), "tickformat": "d"}


def whole_step(values: Iterable[float]) -> int:
    """Return the distance of an axis' marks: 1, 2, 5, 10, 20, ..., at most 11 of them over the finite `values`."""
    finite = [value for value in values if np.isfinite(value)]
    span = max(finite) - min(finite) if finite else 0.0
    steps = (m * 10**power for power in range(20) for m in (1, 2, 5))
    return next(int(step) for step in steps if span <= 10 * step)


def fixed(value: float, digits: int) -> str:
    """Print a finite number with so many decimals: rounded once, a half away from zero.

    Ten decimals of the value count: 0.9805 and the mean of twenty such shares differ in the last bit alone, and print
    the same.
    """
    rounded = Decimal(f"{value:.{max(10, digits + 1)}f}").quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
    return f"{rounded if rounded else abs(rounded):f}"


def in_percent(share: float, digits: int = 1) -> str:
    """Print a finite share 0..1 in percent, without the sign for it; rounded as by `fixed`."""
    return fixed(100 * share, digits)


def json_floats(values: Floats) -> list[float | None]:
    """Return floats for JSON, which has no NaN."""
    return [float(value) if np.isfinite(value) else None for value in values]


def as_printed(values: Floats, template: str) -> list[float | None]:
    """Return floats for JSON that plotly's `template`, such as `%{y:.1f} %`, prints as `fixed` does.

    Plotly rounds the binary value, so that 98.05 becomes 98.0: halves are moved a billionth away from zero.
    """
    decimals = re.search(r":\.(\d)f", template)
    if decimals is None:
        return json_floats(values)
    part = np.abs(values) * 10 ** int(decimals[1]) % 1
    return json_floats(np.where(np.isclose(part, 0.5, rtol=0, atol=1e-7), values + np.copysign(1e-9, values), values))


def compact(value: float) -> str:
    """Print a positive or negative quantity of unknown size with three digits: 0.0123, 4.56, 12,300, 1.2e-05."""
    if not np.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e6:
        return f"{value:.1e}"
    rounded = float(f"{value:.3g}")
    decimals = max(0, 2 - int(np.floor(np.log10(abs(rounded)))))
    return f"{rounded:,.{decimals}f}"


def shorten(name: str, length: int) -> str:
    """Cut a name to at most `length` characters, an ellipsis among them."""
    return name if len(name) <= length else name[: length - 1] + "…"


def shorten_path(name: str, length: int) -> str:
    """Cut a dotted name to at most `length` characters from its start: layers differ at their ends."""
    return name if len(name) <= length else "…" + name[len(name) - length + 1 :]


def spread_out(n: int, most: int) -> list[int]:
    """Choose at most `most` of n positions, evenly spread, first and last among them."""
    if n <= most:
        return list(range(n))
    return [int(i) for i in np.unique(np.rint(np.linspace(0, n - 1, most)).astype(int))]
