"""What the layers hold over training: interpretable neurons by category, layer and snapshot."""

from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd

from tasks.figures.concepts.names import axis_layers
from tasks.figures.concepts.styles import styles_of
from tasks.figures.series import Floats
from tasks.figures.views import INK, Part, View, base_layout, json_floats, light_axis, spread_out

MAX_LAYERS = 8
MAX_SNAPSHOTS = 24
HEIGHT = 350
GAP = 0.25  # between layers, in parts of a layer's bars
MIN_PLACES = 3  # that an axis has room for: a single bar is not a block


@dataclass(frozen=True)
class Holdings:
    """Interpretable neurons of one network, seed and detector.

    Attributes
    ----------
    layers, snapshots : names of L layers in order of depth and of S snapshots in order of training
    categories : C names, low-level ones first
    neurons : (L, S) float64, NaN where a layer has no such snapshot
    counts : (C, L, S) float64, interpretable neurons
    null : (L, S) float64, neurons that remain under the null, NaN unknown
    n_layers, n_snapshots : how many there are, where not all are drawn
    """

    layers: tuple[str, ...]
    snapshots: tuple[str, ...]
    categories: tuple[str, ...]
    neurons: Floats
    counts: Floats
    null: Floats
    n_layers: int
    n_snapshots: int

    @property
    def places(self) -> Floats:
        """The place of each bar, (L, S): the snapshots of a layer side by side."""
        n = len(self.snapshots)
        starts = np.arange(len(self.layers), dtype=np.float64) * (n + max(1.0, GAP * n))
        return starts[:, None] + np.arange(n, dtype=np.float64)

    def in_percent(self, counts: Floats) -> Floats:
        """Return counts in percent of the layer's neurons."""
        neurons = np.where(self.neurons > 0, self.neurons, np.nan)
        return np.asarray(100 * counts / neurons, np.float64)


def holdings(monitor: pd.DataFrame, categories: pd.DataFrame) -> Holdings:
    """Arrange the counts; at most `MAX_LAYERS` layers and `MAX_SNAPSHOTS` snapshots, evenly spread.

    Parameters
    ----------
    monitor, categories : rows of one network, seed and detector, as `ConceptResults` describes them
    """
    layers = list(dict.fromkeys(monitor["layer"]))
    labels = snapshot_labels(monitor)
    shown_layers = [layers[i] for i in spread_out(len(layers), MAX_LAYERS)]
    shown = [list(labels)[i] for i in spread_out(len(labels), MAX_SNAPSHOTS)]
    styles = list(styles_of(categories["category"]))
    found = categories.pivot_table("neurons", ["category", "layer"], "snapshot", aggfunc="sum")
    wanted = pd.MultiIndex.from_product([styles, shown_layers])
    counts = found.reindex(index=wanted, columns=shown).to_numpy(np.float64)
    return Holdings(
        layers=tuple(str(layer) for layer in shown_layers),
        snapshots=tuple(labels[snapshot] for snapshot in shown),
        categories=tuple(styles),
        neurons=_wide(monitor, "neurons", shown_layers, shown),
        counts=np.nan_to_num(counts).reshape(len(styles), len(shown_layers), len(shown)),
        null=_wide(monitor, "null_interpretable", shown_layers, shown),
        n_layers=len(layers),
        n_snapshots=len(labels),
    )


def snapshot_labels(monitor: pd.DataFrame) -> dict[int, str]:
    """Return the name of each snapshot, in order."""
    known = monitor.drop_duplicates("snapshot").sort_values("snapshot")
    return {int(s): str(label) for s, label in zip(known["snapshot"], known["label"], strict=True)}


def holdings_view(held: Holdings, label: str) -> View:
    """Draw stacked bars in percent of each layer's neurons, a group per layer, and the null as small diamonds."""
    places = held.places.ravel()
    data: list[Part] = []
    for i, (name, style) in enumerate(styles_of(held.categories).items()):
        pattern = {"pattern": {"shape": style.pattern, "bgcolor": style.colour, "fgcolor": "#ffffff", "size": 5}}
        bars: Part = {
            "type": "bar",
            "name": escape(name),
            "x": json_floats(places),
            "y": json_floats(held.in_percent(held.counts[i]).ravel()),
            "width": 0.9,
            "customdata": _hovers(held, held.counts[i], name),
            "marker": {"color": style.colour, **(pattern if style.pattern else {})},
            "hovertemplate": "%{customdata}<extra></extra>",
        }
        data.append(bars)
    chance = held.in_percent(held.null).ravel()
    if np.isfinite(chance).any():
        null: Part = {
            "type": "scatter",
            "mode": "markers",
            "name": "by chance",
            "x": json_floats(places),
            "y": json_floats(chance),
            "customdata": _hovers(held, held.null, "by chance"),
            "marker": {"symbol": "diamond-wide", "size": 8, "color": "#ffffff", "line": {"width": 1.5, "color": INK}},
            "hovertemplate": "%{customdata}<extra></extra>",
        }
        data.append(null)
    return View(label, _in_words(held), data, _layout(held))


def _layout(held: Holdings) -> Part:
    """Name the layers under their bars."""
    places = held.places
    names = axis_layers(held.layers)
    xaxis = light_axis(_axis_title(held)) | {
        "tickmode": "array",
        "tickvals": json_floats(places.mean(axis=1)) if places.size else [],
        "ticktext": names,
        "ticks": "",
        "showgrid": False,
        "autotickangles": [0, -40, -90],  # to the left: the last name would not fit on its right
    }
    if places.size and np.ptp(places) + 1 < MIN_PLACES:
        xaxis["range"] = json_floats(places.mean() + MIN_PLACES * np.array([-0.5, 0.5]))
    return base_layout("neurons with a concept (%)") | {
        "height": HEIGHT,
        "hovermode": "closest",
        "barmode": "stack",
        "margin": {"l": 56, "r": 8, "t": 8, "b": 48},
        "xaxis": xaxis,
        "yaxis": light_axis("neurons with a concept (%)") | {"rangemode": "tozero"},
    }


def _axis_title(held: Holdings) -> str:
    """Say what the bars of a layer are."""
    if len(held.snapshots) < 2:
        return "layer"
    return escape(f"layer; its bars: {held.snapshots[0]} to {held.snapshots[-1]}")


def _hovers(held: Holdings, counts: Floats, name: str) -> list[str]:
    """Say which bar it is and what it counts."""
    return [
        escape(f"{layer}, {snapshot}: {name}, {counts[i, j]:.0f} of {held.neurons[i, j]:.0f} neurons")
        for i, layer in enumerate(held.layers)
        for j, snapshot in enumerate(held.snapshots)
    ]


def _in_words(held: Holdings) -> str:
    """Say the first and the last snapshot of each layer."""
    if not held.counts.size:
        return "No neuron holds a concept."
    totals = held.counts.sum(axis=0)
    parts = []
    for i, layer in enumerate(held.layers):
        last = ", ".join(
            f"{name} {held.counts[c, i, -1]:.0f}" for c, name in enumerate(held.categories) if held.counts[c, i, -1]
        )
        start = f"{totals[i, 0]:.0f} at {held.snapshots[0]}, " if len(held.snapshots) > 1 else ""
        text = f"{layer}: {start}{totals[i, -1]:.0f} of {held.neurons[i, -1]:.0f} at {held.snapshots[-1]}"
        parts.append(f"{text} ({last})" if last else text)
    return f"Interpretable neurons by layer. {'; '.join(parts)}."


def _wide(rows: pd.DataFrame, column: str, layers: list[str], snapshots: list[int]) -> Floats:
    """Return a column as (layers, snapshots)."""
    wide = rows.assign(**{column: rows[column].astype(float)}).pivot_table(
        column, "layer", "snapshot", aggfunc="first", dropna=False
    )
    return wide.reindex(index=layers, columns=snapshots).to_numpy(np.float64)
