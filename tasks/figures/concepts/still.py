"""Still figures of the concepts question for a README or a paper: PNG bytes."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.gridspec import GridSpec

from tasks.figures.concepts.course import MAX_LINES
from tasks.figures.concepts.holdings import Holdings, snapshot_labels
from tasks.figures.concepts.names import short_layers
from tasks.figures.concepts.plane import MAX_NAMED, Plane
from tasks.figures.concepts.styles import NEITHER, styles_of
from tasks.figures.series import COLOURS
from tasks.figures.still import MARKERS, STYLES, axes_of, encode
from tasks.figures.views import INK, shorten, spread_out

HATCHES = {"": None, "/": "///", ".": "...", "x": "xxx", "-": "---"}
POINTS = {
    "square": "s",
    "triangle-up": "^",
    "cross": "P",
    "diamond": "D",
    "circle": "o",
    "pentagon": "p",
    "hexagon": "h",
    "hourglass": "X",
}


def holdings_plot(held: Holdings, monitor: pd.DataFrame, *, title: str = "", dpi: int = 150) -> bytes:
    """Draw what the layers hold over training, and d_anchor of each layer below.

    Parameters
    ----------
    held : of one network, seed and detector
    monitor : rows of the same, as `ConceptResults` describes them
    title : above the picture
    dpi : dots per inch of the 6.4 x 5.6 inch picture

    Returns
    -------
    a PNG file
    """
    figure, axes = axes_of(title, 5.6)
    grid = GridSpec(2, 1, figure, height_ratios=(3, 2))
    axes.set_subplotspec(grid[0])
    below = figure.add_subplot(grid[1])
    below.spines[["top", "right"]].set_visible(False)
    _bars(axes, held)
    _distances(below, monitor)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return encode(figure, dpi)


def plane_plot(plane: Plane, snapshot: int, *, title: str = "", dpi: int = 150) -> bytes:
    """Draw the neurons of one layer among the anchors, and the trails of tracked ones.

    Parameters
    ----------
    plane : of one network, seed, layer and detector
    snapshot : one of its snapshots
    title : above the picture
    dpi : dots per inch of the 6.4 x 5 inch picture

    Returns
    -------
    a PNG file
    """
    figure, axes = axes_of(title, 5.0)
    now = plane.neurons[plane.neurons["snapshot"] == snapshot]
    bare = now[~now["interpretable"]]
    axes.scatter(bare["x"], bare["y"], s=12, color=NEITHER[0], label="without a concept")
    for name, style in styles_of(plane.neurons.loc[plane.neurons["interpretable"], "category"]).items():
        rows = now[now["interpretable"] & (now["category"] == name)]
        axes.scatter(rows["x"], rows["y"], s=45, color=style.colour, marker=POINTS[style.symbol], label=_plain(name))
    tracked = plane.neurons[plane.neurons["tracked"] & (plane.neurons["snapshot"] <= snapshot)]
    for i, (neuron, trail) in enumerate(tracked.sort_values("snapshot").groupby("neuron", sort=True)):
        (line,) = axes.plot(trail["x"], trail["y"], marker=".", linewidth=1.2, label=f"trail of {neuron}")
        line.set(color=COLOURS[i % len(COLOURS)], linestyle=STYLES[i % len(STYLES)])
    stars = plane.anchors
    axes.scatter(stars["x"], stars["y"], s=90, marker="*", color="#F0C000", edgecolor=INK, label="anchor", zorder=3)
    for word, x, y in zip(stars["word"][:MAX_NAMED], stars["x"], stars["y"], strict=False):
        named = axes.annotate(shorten(str(word), 16), (float(x), float(y)), (0, 6), textcoords="offset points")
        named.set(ha="center", fontsize=8, parse_math=False)
    low_x, high_x, low_y, high_y = plane.reach
    axes.set(xlim=(low_x, high_x), ylim=(low_y, high_y), xticks=[], yticks=[])
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return encode(figure, dpi)


def _bars(axes: Axes, held: Holdings) -> None:
    """Stack the categories, a group of bars per layer, and the null as small diamonds."""
    places = held.places.ravel()
    base = np.zeros(len(places))
    for i, (name, style) in enumerate(styles_of(held.categories).items()):
        height = np.nan_to_num(held.in_percent(held.counts[i]).ravel())
        bars = axes.bar(places, height, 0.9, bottom=base, label=_plain(name), color=style.colour, edgecolor="white")
        for bar in bars:
            bar.set(hatch=HATCHES[style.pattern], linewidth=0.3)
        base += height
    chance = held.in_percent(held.null).ravel()
    axes.scatter(places, chance, marker="d", color="white", edgecolor=INK, s=16, zorder=3, label="by chance")
    names = short_layers(held.layers, 10)
    axes.set_xticks(held.places.mean(axis=1) if held.places.size else [], names, parse_math=False)
    axes.set_ylabel("neurons with a concept (%)")
    axes.grid(axis="y", color="#e6e9ee", zorder=0)
    axes.set_axisbelow(True)


def _distances(axes: Axes, monitor: pd.DataFrame) -> None:
    """Draw d_anchor by layer over the snapshots."""
    labels = snapshot_labels(monitor)
    layers = list(dict.fromkeys(monitor["layer"]))
    shown = [str(layers[i]) for i in spread_out(len(layers), MAX_LINES)]
    for i, (layer, name) in enumerate(zip(shown, short_layers(shown, 14), strict=True)):
        rows = monitor[monitor["layer"] == layer].sort_values("snapshot")
        (line,) = axes.plot(rows["snapshot"], rows["d_anchor"].astype(float), markersize=4, label=_plain(name))
        line.set(color=COLOURS[i % len(COLOURS)], linestyle=STYLES[i % len(STYLES)], marker=MARKERS[i % len(MARKERS)])
    ticks = [list(labels)[i] for i in spread_out(len(labels), 6)]
    axes.set_xticks(ticks, [labels[i] for i in ticks], parse_math=False)
    axes.set_ylabel(r"$d_\mathrm{anchor}$")
    axes.grid(color="#e6e9ee")


def _plain(name: str) -> str:
    """Keep a name in the legend as it is: no formula, and not hidden by a leading underscore."""
    return name.replace("$", r"\$").lstrip("_")
