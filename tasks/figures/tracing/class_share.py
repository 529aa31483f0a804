"""Which class shaped a layer when: gamma by class and epoch as stacked areas."""

from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd

from tasks.figures.series import COLOURS, Floats
from tasks.figures.views import (
    INK,
    Part,
    View,
    base_layout,
    fixed,
    json_floats,
    light_axis,
    shorten,
    spread_out,
    whole_axis,
)

MAX_CLASSES = 10
MAX_EPOCHS = 120
MAX_LAYERS = 8
PATTERNS = ("", "/", ".", "x", "-")
OTHERS = "#B9C0CA"
MAX_NAME = 12  # of a class in the legend, which shares a phone's width with another


@dataclass(frozen=True)
class ClassShares:
    """Gamma by class and epoch in parts of ||z||^2.

    Attributes
    ----------
    epochs : (E,) int64, ascending; where epochs are joined, the last of each run
    joined : number of epochs in each run, 1 where each is drawn by itself
    classes : names of C classes, the largest first; the last may be all others together
    layers : (C, E) float64 by layer, in the table's order
    n_others : number of classes under the last name, 0 where it is a class
    """

    epochs: np.ndarray
    joined: int
    classes: tuple[str, ...]
    layers: dict[str, Floats]
    n_others: int


def class_shares(rows: pd.DataFrame) -> ClassShares:
    """Arrange the shares of one network and seed; the classes are the same in all layers.

    Parameters
    ----------
    rows : columns layer, epoch, label, class_name, gamma (parts of ||z||^2); a missing row counts as 0
    """
    wide = rows.pivot_table("gamma", ["layer", "label"], "epoch", aggfunc="sum", fill_value=0.0, sort=True)
    labels = wide.abs().sum(axis=1).groupby(level="label").sum().sort_values(ascending=False, kind="stable").index
    shown = list(labels if len(labels) <= MAX_CLASSES else labels[: MAX_CLASSES - 1])
    n_others = len(labels) - len(shown)
    epochs, joined, starts = _runs(wide.columns.to_numpy(np.int64))
    layers = {}
    for layer in dict.fromkeys(rows["layer"]):
        of_layer = wide.loc[layer].reindex(labels, fill_value=0.0).to_numpy(np.float64)
        summed = np.concatenate([of_layer[: len(shown)], of_layer[len(shown) :].sum(axis=0, keepdims=True)])
        in_runs = np.add.reduceat(summed, starts, axis=1) if len(starts) else summed
        layers[str(layer)] = in_runs if n_others else in_runs[:-1]
    others = (f"{n_others} others",) if n_others else ()
    return ClassShares(epochs, joined, _names(rows, shown) + others, layers, n_others)


def class_share_views(rows: pd.DataFrame) -> list[View]:
    """Draw the shares of one network and seed, a view per layer, at most `MAX_LAYERS`, first and last among them."""
    shares = class_shares(rows)
    names = list(shares.layers)
    return [_view(shares, names[i]) for i in spread_out(len(names), MAX_LAYERS)]


def colours(shares: ClassShares) -> list[tuple[str, str]]:
    """Return colour and pattern of each class: two of one colour differ by their pattern."""
    styles = [(COLOURS[i % len(COLOURS)], PATTERNS[i // len(COLOURS) % len(PATTERNS)]) for i in range(MAX_CLASSES)]
    return [*styles[: len(shares.classes) - 1], (OTHERS, "")] if shares.n_others else styles[: len(shares.classes)]


def _runs(epochs: np.ndarray) -> tuple[np.ndarray, int, np.ndarray]:
    """Join epochs where there are too many: the last of each run, their number, where each run begins."""
    joined = max(1, -(-len(epochs) // MAX_EPOCHS))
    starts = np.arange(0, len(epochs), joined)
    return epochs[np.minimum(starts + joined, len(epochs)) - 1], joined, starts


def _names(rows: pd.DataFrame, labels: list[int]) -> tuple[str, ...]:
    """Return the classes' names, with the label where two share one."""
    names = {label: str(name) for label, name in zip(rows["label"], rows["class_name"], strict=True)}
    given = list(names.values())
    return tuple(names[i] if given.count(names[i]) == 1 else f"{names[i]} ({i})" for i in labels)


def _view(shares: ClassShares, layer: str) -> View:
    """Return one layer: what adds up above zero, what takes away below, and the sum as a line."""
    percent = 100 * shares.layers[layer]
    styles = colours(shares)
    order = [len(styles) - 1, *range(len(styles) - 1)] if shares.n_others else list(range(len(styles)))  # others inmost
    data = [part for i in order for part in _areas(shares, percent, i, *styles[i])]
    summed: Part = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "sum of all classes",
        "x": shares.epochs.tolist(),
        "y": json_floats(percent.sum(axis=0)),
        "hovertemplate": "%{y:.2f} %",
        "marker": {"color": INK, "size": 4},
        "line": {"color": INK, "width": 1.5, "dash": "5px,3px"},
    }
    data.append(summed)
    title = "epoch" if shares.joined == 1 else f"epoch, in runs of {shares.joined}"
    yaxis = light_axis("γ in % of ‖z‖²") | {"zeroline": True, "zerolinecolor": INK}
    layout = base_layout("") | {"height": 500, "xaxis": whole_axis(title, shares.epochs.tolist()), "yaxis": yaxis}
    return View(layer, _in_words(shares, layer), data, layout)


def _areas(shares: ClassShares, percent: Floats, i: int, colour: str, pattern: str) -> list[Part]:
    """Return a class's area above zero and, where it takes away, the one below."""
    hatched = {"fillpattern": {"shape": pattern, "bgcolor": colour, "fgcolor": "#ffffff", "size": 6}}
    shared: Part = {
        "type": "scatter",
        "name": escape(shorten(shares.classes[i], MAX_NAME)),
        "legendgroup": str(i),
        "x": shares.epochs.tolist(),
        "mode": "lines" if len(shares.epochs) > 1 else "markers",
        "line": {"color": colour, "width": 0.5},
        "marker": {"color": colour, "size": 10},
        "fillcolor": colour,
        **(hatched if pattern else {}),
    }
    rounded = np.round(percent[i], 5)
    above: Part = {
        **shared,
        "stackgroup": "above",
        "y": json_floats(np.maximum(rounded, 0.0)),
        "customdata": json_floats(rounded),
        "hovertemplate": "%{customdata:.2f} %",
    }
    below: Part = {
        **shared,
        "stackgroup": "below",
        "y": json_floats(np.minimum(rounded, 0.0)),
        "hoverinfo": "skip",
        "showlegend": False,
    }
    return [above, below] if (rounded < 0).any() else [above]


def _in_words(shares: ClassShares, layer: str) -> str:
    """Say the sum at both ends and the classes that contributed most."""
    gamma = 100 * shares.layers[layer]
    if not gamma.size:
        return f"Layer {layer}: no contributions."
    total, ends = gamma.sum(axis=1), gamma.sum(axis=0)
    first, last = shares.epochs[0], shares.epochs[-1]
    text = f"Layer {layer}: contribution of each class by epoch in percent of the squared norm. All classes together: "
    text += f"{fixed(ends[0], 2)} % in epoch {first}"
    text += f", {fixed(ends[-1], 2)} % in epoch {last}" if last != first else ""
    most = np.argsort(-total, kind="stable")[:3]
    return f"{text}. Most over all epochs: {', '.join(f'{shares.classes[i]} {fixed(total[i], 2)} %' for i in most)}."
