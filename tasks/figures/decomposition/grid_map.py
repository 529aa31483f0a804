"""The grid over k1 and k2: how accurate the decomposed layer is in each cell."""

from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd

from tasks.figures.series import Floats
from tasks.figures.views import INK, Part, View, base_layout, fixed, light_axis, spread_out

MEASURES = {
    "accuracy": ("A_d", "accuracy A_d (%)"),
    "ratio": ("r_A", "r_A"),
    "agreement": ("agreement", "agreement (%)"),
}
SCALE: list[list[object]] = [[0.0, "#f1f6fb"], [0.5, "#74a9cf"], [1.0, "#023858"]]
LIGHT: list[list[object]] = [[0.0, "#f4f8fc"], [1.0, "#74b3e0"]]  # below dark numbers: at least 6.5 : 1
MAX_SIDE = 24
MAX_NUMBERS = 100  # cells with their number inside


@dataclass(frozen=True)
class Grid:
    """Measures by k1 and k2.

    Attributes
    ----------
    k1 : as asked, numbers ascending, coverages last
    k2 : ascending
    values : (K2, K1) float64 by column of the table; NaN where a cell was not computed
    """

    k1: tuple[str, ...]
    k2: tuple[int, ...]
    values: dict[str, Floats]

    def diagonal(self) -> list[tuple[int, int]]:
        """Return row and column of the cells with k2 = k1."""
        return [(self.k2.index(int(k)), j) for j, k in enumerate(self.k1) if k.isdigit() and int(k) in self.k2]


def grid_of(rows: pd.DataFrame) -> Grid:
    """Arrange the cells of one network and seed.

    Parameters
    ----------
    rows : columns k1 (printable), k2 and, where known, accuracy, ratio, agreement (0..1)
    """
    rows = rows.assign(k1=rows["k1"].astype(str), k2=rows["k2"].astype(int))
    names = list(dict.fromkeys(rows["k1"]))
    k1 = sorted((name for name in names if name.isdigit()), key=int) + [n for n in names if not n.isdigit()]
    k2 = sorted(set(rows["k2"]))
    values = {}
    for column in MEASURES:
        if column in rows:
            wide = rows.pivot_table(column, "k2", "k1", aggfunc="last", dropna=False).reindex(index=k2, columns=k1)
            values[column] = wide.to_numpy(np.float64)
    return Grid(tuple(k1), tuple(k2), values)


def thinned(grid: Grid) -> Grid:
    """Keep at most `MAX_SIDE` values of k1 and of k2, evenly spread."""
    across, down = spread_out(len(grid.k1), MAX_SIDE), spread_out(len(grid.k2), MAX_SIDE)
    values = {name: table[np.ix_(down, across)] for name, table in grid.values.items()}
    return Grid(tuple(grid.k1[j] for j in across), tuple(grid.k2[i] for i in down), values)


def grid_views(rows: pd.DataFrame) -> list[View]:
    """Draw the grid as a map with numbers, a view per measure; cells with k2 = k1 are outlined."""
    grid = thinned(grid_of(rows))
    return [_view(grid, column) for column, table in grid.values.items() if np.isfinite(table).any()]


def colour_scale(n_cells: int) -> list[list[object]]:
    """Return the colours of a map: light ones where its numbers are inside the cells."""
    return LIGHT if n_cells <= MAX_NUMBERS else SCALE


def cell_numbers(n_cells: int, template: str) -> Part:
    """Return what prints a map's numbers inside its cells in place of a colour bar; nothing where they are too many."""
    if n_cells > MAX_NUMBERS:
        return {}
    return {"texttemplate": template, "showscale": False, "textfont": {"color": INK}}


def _view(grid: Grid, column: str) -> View:
    """Return one measure as a map."""
    label, title = MEASURES[column]
    scale, digits = (1.0, 3) if column == "ratio" else (100.0, 1)
    values = scale * grid.values[column]
    across, down = list(range(len(grid.k1))), list(range(len(grid.k2)))
    unit = "" if column == "ratio" else " %"
    text = [
        [
            f"k1 {escape(a)}, k2 {b}: {fixed(z, digits)}{unit}" if np.isfinite(z) else ""
            for a, z in zip(grid.k1, row, strict=True)
        ]
        for b, row in zip(grid.k2, values, strict=True)
    ]
    data: Part = {
        "type": "heatmap",
        "x": across,
        "y": down,
        "z": [[float(fixed(z, digits)) if np.isfinite(z) else None for z in row] for row in values],
        "text": text,
        "hovertemplate": "%{text}<extra></extra>",
        "colorscale": colour_scale(values.size),
        "xgap": 1,
        "ygap": 1,
        "colorbar": {"thickness": 12, "len": 1, "outlinewidth": 0},
        **cell_numbers(values.size, f"%{{z:.{digits}f}}"),
    }
    shapes = [
        {"type": "rect", "x0": j - 0.5, "x1": j + 0.5, "y0": i - 0.5, "y1": i + 0.5, "line": {"color": INK, "width": 2}}
        for i, j in grid.diagonal()
    ]
    layout = base_layout("") | {
        "height": min(640, max(400, 140 + 32 * len(down))),
        "hovermode": "closest",
        "xaxis": _axis("k1, counted in each image", list(grid.k1)),
        "yaxis": _axis("k2, kept for each class", [str(k) for k in grid.k2]),
        "shapes": shapes,
    }
    return View(label, _in_words(grid, column, title, digits), [data], layout)


def _axis(title: str, names: list[str]) -> Part:
    """Return an axis with a place per name."""
    plain: Part = {
        "tickmode": "array",
        "tickvals": list(range(len(names))),
        "ticktext": [escape(name) for name in names],
        "showgrid": False,
    }
    return light_axis(title) | plain


def _in_words(grid: Grid, column: str, title: str, digits: int) -> str:
    """Name the best and the worst cell."""
    table = grid.values[column]
    scale = 1.0 if column == "ratio" else 100.0
    ends = []
    for word, flat in (("largest", np.nanargmax(table)), ("smallest", np.nanargmin(table))):
        i, j = np.unravel_index(flat, table.shape)
        ends.append(f"{word} {fixed(scale * table[i, j], digits)} at k1 {grid.k1[j]} and k2 {grid.k2[i]}")
    return f"Map of {title} over k1 and k2: {', '.join(ends)}."
