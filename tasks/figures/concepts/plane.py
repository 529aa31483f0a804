"""Neurons among words: one plane for all snapshots, anchors as stars, trails of tracked neurons."""

from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd

from tasks.figures.concepts.styles import NEITHER, styles_of
from tasks.figures.series import COLOURS, DASHES
from tasks.figures.views import INK, Part, View, base_layout, json_floats, light_axis, shorten, spread_out

MAX_NEURONS = 200  # in a picture: tracked ones, then interpretable ones
MAX_ANCHORS = 60
MAX_NAMED = 16  # anchors with their word next to the star
MAX_TRACKED = 6
HEIGHT = 470


@dataclass(frozen=True)
class Plane:
    """One layer over its snapshots.

    Attributes
    ----------
    neurons : columns snapshot, neuron, x, y, tracked, interpretable, word, category; those that are drawn
    anchors : columns word, x, y
    reach : lowest and highest x, then y, over all snapshots
    n_neurons, n_anchors : how many there are, where not all are drawn
    """

    neurons: pd.DataFrame
    anchors: pd.DataFrame
    reach: tuple[float, float, float, float]
    n_neurons: int
    n_anchors: int


def plane_of(rows: pd.DataFrame, anchors: pd.DataFrame, most: int = MAX_NEURONS) -> Plane:
    """Choose what is drawn: the same neurons at every snapshot.

    Parameters
    ----------
    rows : of one network, seed, layer and detector, as `ConceptResults.plane` describes them
    anchors : columns word, x, y
    most : neurons at most
    """
    known = rows[np.isfinite(rows["x"].astype(float)) & np.isfinite(rows["y"].astype(float))]
    flags = known[["tracked", "interpretable"]].astype(int).assign(neuron=known["neuron"])
    by_neuron = flags.groupby("neuron", sort=True).agg(tracked=("tracked", "max"), held=("interpretable", "sum"))
    order = by_neuron.sort_values(["tracked", "held"], ascending=False, kind="stable")
    drawn = known[known["neuron"].isin(order.index[:most])]
    tracked = list(by_neuron.index[by_neuron["tracked"] > 0])[:MAX_TRACKED]
    drawn = drawn.assign(tracked=drawn["neuron"].isin(tracked), interpretable=drawn["interpretable"].astype(bool))
    stars = anchors.iloc[spread_out(len(anchors), MAX_ANCHORS)]
    x = np.concatenate([drawn["x"].to_numpy(np.float64), stars["x"].to_numpy(np.float64), [0.0]])
    y = np.concatenate([drawn["y"].to_numpy(np.float64), stars["y"].to_numpy(np.float64), [0.0]])
    reach = (*_padded(x), *_padded(y))
    return Plane(drawn, stars, reach, int(known["neuron"].nunique()), len(anchors))


def plane_view(plane: Plane, snapshot: int, label: str) -> View:
    """Draw one snapshot, and the trails that lead to it."""
    now = plane.neurons[plane.neurons["snapshot"] == snapshot]
    held = now[now["interpretable"]]
    data = [_stars(plane.anchors)]
    data.append(_neurons(now[~now["interpretable"]], "without a concept", {"color": NEITHER[0], "size": 5}))
    for name, style in styles_of(plane.neurons.loc[plane.neurons["interpretable"], "category"]).items():
        marker = {"color": style.colour, "size": 10, "symbol": style.symbol, "line": {"color": "#ffffff", "width": 1}}
        data.append(_neurons(held[held["category"] == name], name, marker))
    data += _trails(plane, snapshot)
    low_x, high_x, low_y, high_y = plane.reach
    bare: Part = {"showticklabels": False, "ticks": ""}
    layout = base_layout("") | {
        "height": HEIGHT,
        "hovermode": "closest",
        "margin": {"l": 24, "r": 8, "t": 8, "b": 40},
        "xaxis": light_axis("first direction of the plane") | bare | {"range": [low_x, high_x]},
        "yaxis": light_axis("second direction") | bare | {"range": [low_y, high_y]},
    }
    return View(label, _in_words(plane, now), data, layout)


def _padded(values: np.ndarray) -> tuple[float, float]:
    """Return the ends of an axis, with room for the words at the stars."""
    low, high = float(values.min()), float(values.max())
    room = 0.12 * (high - low) or 1.0
    return round(low - room, 5), round(high + room, 5)


def _stars(anchors: pd.DataFrame) -> Part:
    """Return the anchors, with their words where they are few."""
    words = [escape(shorten(str(word), 16)) for word in anchors["word"]]
    named = len(words) <= MAX_NAMED
    return {
        "type": "scatter",
        "mode": "markers+text" if named else "markers",
        "name": "anchor",
        "x": _short(anchors["x"]),
        "y": _short(anchors["y"]),
        "text": words,
        "textposition": "top center",
        "textfont": {"size": 12, "color": INK},
        "marker": {"symbol": "star", "size": 11, "color": "#F0C000", "line": {"color": INK, "width": 1}},
        "hovertemplate": "anchor %{text}<extra></extra>",
    }


def _neurons(rows: pd.DataFrame, name: str, marker: Part) -> Part:
    """Return neurons of one category."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": escape(name),
        "x": _short(rows["x"]),
        "y": _short(rows["y"]),
        "text": [
            escape(f"neuron {n}: {shorten(str(word), 24)}")
            for n, word in zip(rows["neuron"], rows["word"], strict=True)
        ],
        "customdata": [int(n) for n in rows["neuron"]],
        "marker": marker,
        "hovertemplate": "%{text}<extra></extra>",
    }


def _trails(plane: Plane, snapshot: int) -> list[Part]:
    """Return the way of each tracked neuron up to a snapshot."""
    parts: list[Part] = []
    rows = plane.neurons[plane.neurons["tracked"] & (plane.neurons["snapshot"] <= snapshot)]
    for i, (neuron, trail) in enumerate(rows.sort_values("snapshot").groupby("neuron", sort=True)):
        colour = COLOURS[i % len(COLOURS)]
        part: Part = {
            "type": "scatter",
            "mode": "lines+markers",
            "name": f"trail of {neuron}",
            "x": _short(trail["x"]),
            "y": _short(trail["y"]),
            "line": {"color": colour, "width": 1.5, "dash": DASHES[i % len(DASHES)]},
            "marker": {"symbol": "circle-open", "color": colour, "size": [4] * (len(trail) - 1) + [15]},
            "text": [escape(f"neuron {neuron}: {shorten(str(word), 24)}") for word in trail["word"]],
            "customdata": [int(n) for n in trail["neuron"]],
            "hovertemplate": "%{text}<extra></extra>",
        }
        parts.append(part)
    return parts


def _in_words(plane: Plane, now: pd.DataFrame) -> str:
    """Say how many are drawn and what they hold."""
    held = now[now["interpretable"]]
    most = held["category"].value_counts().sort_index().sort_values(ascending=False, kind="stable")
    text = f"{len(now)} neurons among {len(plane.anchors)} anchors; {len(held)} "
    text += "holds a concept" if len(held) == 1 else "hold a concept"
    return f"{text}: {', '.join(f'{name} {n}' for name, n in most.items())}." if len(held) else f"{text}."


def _short(values: pd.Series) -> list[float | None]:
    """Return places with four decimals: the page holds many."""
    return json_floats(np.round(values.to_numpy(np.float64), 4))
