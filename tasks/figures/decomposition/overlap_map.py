"""How much the sets of two classes have in common."""

from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from tasks.figures.decomposition.grid_map import cell_numbers, colour_scale
from tasks.figures.series import Floats
from tasks.figures.views import Part, View, base_layout, fixed, in_percent, light_axis, shorten

MAX_CLASSES = 30
MAX_LABELLED = 12  # columns with names; more would run into each other on a phone
MAX_NAME = 10


@dataclass(frozen=True)
class Overlap:
    """Common part of the sets of every two classes.

    Attributes
    ----------
    network, seed : which network
    classes : names of C classes
    matrix : (C, C) float, 0..1, symmetric: what part of one class's set is in the other's too
    """

    network: str
    seed: int
    classes: tuple[str, ...]
    matrix: NDArray[np.floating]

    def __post_init__(self) -> None:
        """Refuse a matrix that is not a row and a column per class."""
        n = len(self.classes)
        if np.shape(self.matrix) != (n, n):
            raise ValueError(f"overlap of shape {np.shape(self.matrix)}: expected ({n}, {n}), a row for each class")

    def others(self) -> Floats:
        """Return the matrix (C, C) with NaN on the diagonal: a class shares everything with itself."""
        off: Floats = np.where(np.eye(len(self.classes), dtype=bool), np.nan, self.matrix)
        return off

    def mean(self) -> float:
        """Return the mean over pairs of classes, NaN for one class."""
        return float(np.nanmean(self.others())) if len(self.classes) > 1 else float("nan")


def shown_classes(overlap: Overlap) -> list[int]:
    """Choose all classes, or the `MAX_CLASSES` that share most with the others, in their own order."""
    n = len(overlap.classes)
    if n <= MAX_CLASSES:
        return list(range(n))
    shared = np.nan_to_num(overlap.others()).sum(axis=1)
    return sorted(int(i) for i in np.argsort(-shared, kind="stable")[:MAX_CLASSES])


def nearest_pairs(overlap: Overlap, most: int) -> list[tuple[str, str, float]]:
    """Return the pairs of classes that share most, at most `most` of them."""
    rows, columns = np.triu_indices(len(overlap.classes), k=1)
    values = np.asarray(overlap.matrix, np.float64)[rows, columns]
    order = np.argsort(-values, kind="stable")[:most]
    return [(overlap.classes[rows[i]], overlap.classes[columns[i]], float(values[i])) for i in order]


def overlap_view(overlap: Overlap) -> View:
    """Draw the overlap of every two classes shown."""
    chosen = shown_classes(overlap)
    values = 100 * overlap.others()[np.ix_(chosen, chosen)]
    names = [overlap.classes[i] for i in chosen]
    places = list(range(len(names)))
    data: Part = {
        "type": "heatmap",
        "x": places,
        "y": places,
        "z": [[float(fixed(z, 1)) if np.isfinite(z) else None for z in row] for row in values],
        "text": [[fixed(z, 0) if np.isfinite(z) else "" for z in row] for row in values],
        "customdata": [[f"{escape(a)}, {escape(b)}" for b in names] for a in names],
        "hovertemplate": "%{customdata}: %{z:.1f} %<extra></extra>",
        "hoverongaps": False,
        "colorscale": colour_scale(values.size),
        "zmin": 0,
        "zmax": max(10.0, float(np.nan_to_num(values).max(initial=0.0))),
        "xgap": 1,
        "ygap": 1,
        "colorbar": {"thickness": 12, "len": 1, "outlinewidth": 0, "ticksuffix": " %"},
        **cell_numbers(values.size, "%{text}"),
    }
    axis = {
        **light_axis(""),
        "tickmode": "array",
        "tickvals": places,
        "ticktext": [escape(shorten(name, MAX_NAME)) for name in names],
        "showgrid": False,
        "ticks": "",
        "tickfont": {"size": 12 if len(names) <= MAX_LABELLED else 9},
    }
    layout = base_layout("") | {
        "height": 440 if len(names) <= MAX_LABELLED else 600,
        "hovermode": "closest",
        "plot_bgcolor": "#d9dee6",
        "xaxis": {
            **axis,
            "tickangle": -90,
            "showticklabels": len(names) <= MAX_LABELLED,
            "title": {"text": "common part of two sets (%)", "standoff": 12},
        },
        "yaxis": {**axis, "autorange": "reversed"},
    }
    said = "; ".join(f"{a} and {b} {in_percent(value)} %" for a, b, value in nearest_pairs(overlap, 3))
    mean = f" {in_percent(overlap.mean())} % on average." if len(names) > 1 else ""
    return View("overlap", f"Overlap of the sets of two classes.{mean} Most: {said}.", [data], layout)
