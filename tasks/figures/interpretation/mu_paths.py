"""How many units a class has at each bound mu: the path of the mu-lasso."""

from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd

from tasks.figures.series import COLOURS, Floats
from tasks.figures.views import GREY, Part, View, base_layout, fixed, json_floats, light_axis, shorten, spread_out

MAX_CLASSES = 30
GRID = 60  # places of the median's line


@dataclass(frozen=True)
class ClassPath:
    """The breakpoints of one class: mu (k,) ascending from 0, and units (k,) with a weight there."""

    name: str
    mu: Floats
    units: Floats

    def at(self, mu: Floats) -> Floats:
        """Return the units between breakpoints: those of the next one, which have a weight from the last one on."""
        return self.units[np.minimum(np.searchsorted(self.mu, mu), len(self.mu) - 1)]


def class_paths(rows: pd.DataFrame) -> list[ClassPath]:
    """Return the path of each class.

    Parameters
    ----------
    rows : of one network and set; columns label, class_name, mu, units
    """
    return [
        ClassPath(str(table["class_name"].iloc[0]), *(np.asarray(table[name], np.float64) for name in ("mu", "units")))
        for _, table in rows.sort_values("mu", kind="stable").groupby("label", sort=True)
    ]


def path_views(rows: pd.DataFrame, mu: float) -> list[View]:
    """Draw the units of each class against mu, the median of all classes, and the chosen mu; a view for each set.

    Parameters
    ----------
    rows : of one network; as `class_paths` takes them, and title
    mu : the chosen bound
    """
    return [_view(str(title), class_paths(table), mu) for title, table in rows.groupby("title", sort=False)]


def _view(title: str, paths: list[ClassPath], mu: float) -> View:
    """Draw one set."""
    data: list[Part] = []
    for i in spread_out(len(paths), MAX_CLASSES):
        path = paths[i]
        inside = path.mu <= mu
        x, y = np.append(path.mu[inside], mu), np.append(path.units[inside], path.at(np.array([mu])))
        data.append(_line(x, y, path.name, {"color": "#9aa3b2", "width": 1}))
    grid = np.linspace(0.0, mu, GRID)
    median = np.median([path.at(grid) for path in paths], axis=0)
    data.append(_line(grid, median, "median of all classes", {"color": COLOURS[0], "width": 3}) | {"showlegend": True})
    chosen = [path.at(np.array([mu]))[0] for path in paths]
    layout = base_layout("units of a class") | {
        "hovermode": "closest",
        "xaxis": light_axis("bound mu of the sum of a class's weights")
        | {"rangemode": "tozero", "range": [0, 1.06 * mu]},
        "yaxis": light_axis("units of a class") | {"rangemode": "tozero"},
        "shapes": [{"type": "line", "x0": mu, "x1": mu, "yref": "paper", "y0": 0, "y1": 1, "line": _dashed()}],
        "annotations": [
            {
                "x": mu,
                "yref": "paper",
                "y": 0.02,
                "text": f"mu = {mu:g}",
                "showarrow": False,
                "xanchor": "right",
                "yanchor": "bottom",
            }
        ],
    }
    alt = (
        f"Number of units against mu, {title}. At mu = {mu:g} a class has {fixed(min(chosen), 0)} to "
        f"{fixed(max(chosen), 0)} units, half of the classes at most {fixed(float(np.median(chosen)), 1)}."
    )
    return View(title, alt, data, layout)


def _line(x: Floats, y: Floats, name: str, line: Part) -> Part:
    """Return a line in steps: the units of a breakpoint have weights from the one before on."""
    return {
        "type": "scatter",
        "mode": "lines",
        "name": escape(shorten(name, 40)),
        "x": json_floats(x),
        "y": json_floats(y),
        "line": {**line, "shape": "vh"},
        "hovertemplate": "%{y:.1f} units at mu %{x:.3g}",
        "showlegend": False,
    }


def _dashed() -> Part:
    """Return the style of the line at the chosen mu."""
    return {"color": GREY, "width": 1.5, "dash": "7px,4px"}
