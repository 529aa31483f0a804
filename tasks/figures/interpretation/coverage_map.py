"""Which layers the units of each coreset lie in, and how many of them the full data finds too."""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd

from tasks.figures.decomposition.grid_map import cell_numbers, colour_scale
from tasks.figures.series import Floats
from tasks.figures.views import Part, View, base_layout, fixed, in_percent, light_axis, spread_out

FULL_DATA = "full data"
MAX_LABELS = 24  # of layers; more would run into each other


@dataclass(frozen=True)
class Coverage:
    """Units by layer and set.

    Attributes
    ----------
    calls : numbers of the ReLU calls
    sets : titles of the columns: budgets of one selector, or selectors with budgets
    units : (calls, sets) float, units of a class, mean over classes and draws
    shared : (calls, sets) float, share of the full data's units that the set finds too, NaN where it has none
    full : (calls,) float, units of a class on the full data
    """

    calls: tuple[int, ...]
    sets: tuple[str, ...]
    units: Floats
    shared: Floats
    full: Floats


def relu_name(call: int, calls: int) -> str:
    """Name a ReLU call of a forward pass by its place among all, from 1; `call` counts from 0."""
    return f"ReLU {call + 1} of {calls}"


def coverage_of(rows: pd.DataFrame) -> Coverage:
    """Return the coverage of all coresets in a table.

    Parameters
    ----------
    rows : of one network; columns selector, budget, call, units, units_reference, units_shared; budget 1 is left out
    """
    rows = rows[rows["budget"] < 1]
    several = rows["selector"].nunique() > 1
    sets, columns = [], []
    for _, table in rows.groupby(["selector", "budget"], sort=False):
        name = f"{100 * float(table['budget'].iloc[0]):g} %"
        sets.append(f"{table['selector'].iloc[0]} {name}" if several else name)
        columns.append(table.sort_values("call"))
    calls = tuple(int(call) for call in columns[0]["call"])
    units, full, both = (
        np.stack([np.asarray(table[name], np.float64) for table in columns], axis=1)
        for name in ("units", "units_reference", "units_shared")
    )
    with np.errstate(invalid="ignore"):
        shared = np.where(full > 0, both / full, np.nan)
    return Coverage(calls, tuple(sets), units, shared, full[:, 0])


def coverage_views(rows: pd.DataFrame) -> list[View]:
    """Draw units by layer and budget, and the share of the full data's units, two views for each selector."""
    return [view for selector in rows["selector"].unique() for view in _views(rows, str(selector))]


def _views(rows: pd.DataFrame, selector: str) -> Iterator[View]:
    """Yield the two views of a selector."""
    mine = rows[(rows["selector"] == selector) & (rows["budget"] < 1)]
    if not len(mine):
        return
    found = coverage_of(mine)
    units = np.column_stack([found.full, found.units])
    total = ", ".join(
        f"{fixed(sum(column), 1)} at {name}" for name, column in zip(found.sets, found.units.T, strict=True)
    )
    said = f"Units of a class by ReLU, {selector}: {fixed(sum(found.full), 1)} on the full data, {total}."
    yield View(
        f"{selector}: units", said, *_map(found.calls, (FULL_DATA, *found.sets), units, 1, "", "units of a class")
    )
    means = ", ".join(
        f"{in_percent(float(np.nansum(share * found.full) / found.full.sum()), 0)} % at {name}"
        for name, share in zip(found.sets, found.shared.T, strict=True)
        if found.full.sum() > 0
    )
    said = f"Share of the full data's units that {selector} finds too: {means or 'the full data has none'}."
    yield View(
        f"{selector}: in common",
        said,
        *_map(found.calls, found.sets, 100 * found.shared, 0, " %", "share of the full data's units found"),
    )


def _map(
    calls: tuple[int, ...], sets: tuple[str, ...], values: Floats, digits: int, unit: str, title: str
) -> tuple[list[Part], Part]:
    """Return data and layout of a map, the first ReLU on top."""
    text = [
        [
            f"{relu_name(call, len(calls))}, {escape(name)}: {fixed(z, digits)}{unit}"
            if np.isfinite(z)
            else f"{relu_name(call, len(calls))}: none on the full data"
            for name, z in zip(sets, row, strict=True)
        ]
        for call, row in zip(calls, values, strict=True)
    ]
    places, ticks = list(range(len(sets))), spread_out(len(calls), MAX_LABELS)
    data: Part = {
        "type": "heatmap",
        "x": places,
        "y": list(range(len(calls))),
        "z": [[float(fixed(z, digits)) if np.isfinite(z) else None for z in row] for row in values],
        "text": text,
        "hovertemplate": "%{text}<extra></extra>",
        "hoverongaps": False,
        "colorscale": colour_scale(values.size),
        "zmin": 0,
        "zmax": 100 if unit else max(1.0, float(np.nan_to_num(values).max(initial=0.0))),
        "xgap": 1,
        "ygap": 1,
        "colorbar": {"thickness": 12, "len": 1, "outlinewidth": 0, "ticksuffix": unit},
        **cell_numbers(values.size, f"%{{z:.{digits}f}}"),
    }
    plain: Part = {"tickmode": "array", "showgrid": False, "ticks": ""}
    across = light_axis(title) | plain | {"tickvals": places, "ticktext": [escape(name) for name in sets]}
    names = [relu_name(calls[i], len(calls)) for i in ticks]
    down = {"tickvals": ticks, "ticktext": names, "autorange": "reversed"}
    layout = base_layout("") | {
        "height": min(760, max(400, 140 + 32 * len(calls))),
        "hovermode": "closest",
        "plot_bgcolor": "#d9dee6",
        "xaxis": across,
        "yaxis": light_axis("") | plain | down,
    }
    return [data], layout
