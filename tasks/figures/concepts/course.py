"""How diversity, accuracy and loss move over the snapshots: three small panels with one axis of snapshots."""

import re
from collections.abc import Sequence
from html import escape

import numpy as np
import pandas as pd

from tasks.figures.concepts.holdings import HEIGHT, snapshot_labels
from tasks.figures.concepts.names import short_layers
from tasks.figures.lines import line
from tasks.figures.series import Floats
from tasks.figures.views import INK, Part, View, base_layout, compact, json_floats, light_axis, spread_out

MAX_TICKS = 6
MAX_SHORT_TICKS = 10  # of at most two characters each
MAX_LINES = 6  # of layers: a seventh would look like the first
PANELS = (("d_anchor", "d<sub>anchor</sub>"), ("accuracy", "accuracy"), ("loss", "loss"))
GAP = 0.07  # between panels, in parts of the height


def course_view(monitor: pd.DataFrame, label: str) -> View:
    """Draw d_anchor by layer, and the network's accuracy and loss where known.

    Parameters
    ----------
    monitor : rows of one network, seed and detector, as `ConceptResults` describes them
    label : of the view
    """
    labels = snapshot_labels(monitor)
    panels = [(name, title) for name, title in PANELS if np.isfinite(monitor[name].astype(float)).any()]
    data: list[Part] = []
    words = []
    layout = base_layout("") | {"height": HEIGHT, "margin": {"l": 56, "r": 8, "t": 8, "b": 48}}
    layout["legend"] = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 11}}
    layout |= {"xaxis": snapshot_axis(labels) | {"anchor": f"y{len(panels)}" if len(panels) > 1 else "y"}}
    for i, (name, title) in enumerate(panels):
        axis = "y" if i == 0 else f"y{i + 1}"
        drawn = _distances(monitor) if name == "d_anchor" else [_whole(monitor, name)]
        data += [{**part, "yaxis": axis} for part in drawn]
        step = (1 + GAP) / len(panels)
        top = 1 - i * step
        layout[f"yaxis{'' if i == 0 else i + 1}"] = light_axis(title) | {
            "domain": [max(0.0, top - step + GAP), top],
            "ticksuffix": " %" if name == "accuracy" else "",
            "nticks": 4,
        }
        words.append(_in_words(monitor, name, labels))
    return View(label, " ".join(words) or "Nothing is known of the course of the training.", data, layout)


def snapshot_axis(labels: dict[int, str]) -> Part:
    """Return an axis of snapshots in their order, as many of them named as there is room for."""
    title, names = _short(list(labels.values()))
    all_fit = len(names) <= MAX_SHORT_TICKS and all(len(name) <= 2 for name in names)
    chosen = spread_out(len(names), MAX_SHORT_TICKS if all_fit else MAX_TICKS)
    reach = [min(labels, default=0) - 0.3, max(labels, default=0) + 0.3]
    shown = [escape(names[i]) for i in chosen]
    ticks = {"tickmode": "array", "tickvals": [list(labels)[i] for i in chosen], "ticktext": shown}
    return light_axis(title) | ticks | {"range": reach}


def _short(names: Sequence[str]) -> tuple[str, list[str]]:
    """Take a word that all names begin with into the title: "step 0", "step 20" and "epoch_0" are numbers of it."""
    parts = [re.fullmatch(r"(.*?)[ _-](\d[\d,.]*)", name) for name in names]
    found = [part for part in parts if part is not None]
    if len(names) > 1 and len(found) == len(names) and len({part[1] for part in found}) == 1:
        return escape(found[0][1]), [part[2] for part in found]
    return "snapshot", list(names)


def _distances(monitor: pd.DataFrame) -> list[Part]:
    """Return a line per layer."""
    layers = list(dict.fromkeys(monitor["layer"]))
    shown = [str(layers[i]) for i in spread_out(len(layers), MAX_LINES)]
    parts = []
    for i, (layer, name) in enumerate(zip(shown, short_layers(shown, 12), strict=True)):
        rows = monitor[monitor["layer"] == layer].sort_values("snapshot")
        parts.append(line(_numbers(rows, "snapshot"), _numbers(rows, "d_anchor"), name, i, "%{y:.3f}"))
    return [{**part, "marker": {**_marker(part), "size": 6}} for part in parts]


def _marker(part: Part) -> Part:
    """Return how a line's marks look."""
    marker = part["marker"]
    assert isinstance(marker, dict)
    return marker


def _whole(monitor: pd.DataFrame, name: str) -> Part:
    """Return a line of the whole network."""
    rows = monitor.drop_duplicates("snapshot").sort_values("snapshot")
    scale, form = (100.0, "%{y:.1f} %") if name == "accuracy" else (1.0, "%{y:.4g}")
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "showlegend": False,
        "x": json_floats(_numbers(rows, "snapshot")),
        "y": json_floats(scale * _numbers(rows, name)),
        "line": {"color": INK, "width": 2},
        "marker": {"color": INK, "size": 5},
        "hovertemplate": form,
    }


def _in_words(monitor: pd.DataFrame, name: str, labels: dict[int, str]) -> str:
    """Say a measure at both ends, its mean over the layers."""
    means = monitor.assign(value=monitor[name].astype(float)).groupby("snapshot")["value"].mean().dropna()
    if means.empty:
        return ""
    said = f"{name}: {compact(float(means.iloc[0]))} at {labels[int(means.index[0])]}"
    if len(means) > 1:
        said += f", {compact(float(means.iloc[-1]))} at {labels[int(means.index[-1])]}"
    return f"{said}{' (mean over layers)' if name == 'd_anchor' else ''}."


def _numbers(rows: pd.DataFrame, column: str) -> Floats:
    """Return a column as numbers."""
    return rows[column].to_numpy(np.float64, na_value=np.nan)
