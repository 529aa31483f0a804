"""Still figures of the tracing question for a README or a paper: PNG bytes."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MultipleLocator

from tasks.figures.still import axes_of, encode
from tasks.figures.tracing.class_share import ClassShares, class_shares, colours
from tasks.figures.tracing.ridges import HIGHLIGHT, OTHER, OVERLAP, Ridges
from tasks.figures.views import GREY, INK, compact, in_percent, shorten, whole_step

HATCHES = {"": None, "/": "///", ".": "...", "x": "xxx", "-": "---"}
MAX_NAME = 24


def ridge_plot(ridges: Ridges, *, title: str = "", dpi: int = 150) -> bytes:
    """Draw the step cosines' densities by class, the predicted class in colour and bold.

    Parameters
    ----------
    ridges : of one query and layer
    title : above the picture
    dpi : dots per inch of the 6.4 inch wide picture

    Returns
    -------
    a PNG file
    """
    n = len(ridges.classes)
    figure, axes = axes_of(title, 1.2 + 0.32 * max(n, 4))
    for i, base in enumerate(ridges.baselines()):
        x, height = ridges.curve(i)
        chosen = i == ridges.highlighted
        colour, weight = (HIGHLIGHT, "bold") if chosen else (OTHER, "normal")
        axes.fill_between(x, base, base + height, color=colour, alpha=0.8 if chosen else 0.4, linewidth=0, zorder=2 * i)
        axes.plot(x, base + height, color=colour, linewidth=2 if chosen else 1, zorder=2 * i + 1)
        name = f"{shorten(ridges.classes[i], MAX_NAME)} {in_percent(float(ridges.probabilities[i]))} %"
        for x_text, text, side in (
            (-0.02, f"▶ {name}" if chosen else name, "right"),
            (1.02, compact(ridges.totals[i]), "left"),
        ):
            amount = axes.text(x_text, base, text, ha=side, va="bottom", weight=weight, parse_math=False)
            amount.set_transform(axes.get_yaxis_transform())
    axes.text(1.02, 1, "total\nweight", transform=axes.transAxes, color=GREY, va="bottom", fontsize=8)
    axes.axvline(0, color=INK, linewidth=0.8, linestyle="--", zorder=-1)
    axes.set(xlim=(-ridges.reach(), ridges.reach()), ylim=(-0.2, max(n - 1, 0) + OVERLAP + 0.1), yticks=[])
    axes.set_xlabel(f"cosine of a step with the representation ({ridges.bandwidth})", parse_math=False)
    axes.spines["left"].set_visible(False)
    return encode(figure, dpi)


def class_share_plot(rows: pd.DataFrame, layer: str, *, title: str = "", dpi: int = 150) -> bytes:
    """Draw gamma by class and epoch of one layer as stacked areas.

    Parameters
    ----------
    rows : of one network and seed, as `tasks.figures.tracing.class_share.class_shares` takes them
    layer : one of the table's
    title : above the picture
    dpi : dots per inch of the 6.4 x 4 inch picture

    Returns
    -------
    a PNG file
    """
    shares = class_shares(rows)
    if layer not in shares.layers:
        raise ValueError(f"layer: expected one of {', '.join(shares.layers)}, found {layer!r}")
    figure, axes = axes_of(title, 4.0)
    _stack(axes, shares, 100 * shares.layers[layer])
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_xlabel("epoch" if shares.joined == 1 else f"epoch, in runs of {shares.joined}")
    axes.xaxis.set_major_locator(MultipleLocator(whole_step(shares.epochs.tolist())))
    axes.set_ylabel(r"$\gamma$ in % of $\|z\|^2$")
    axes.grid(axis="y", color="#e6e9ee", zorder=0)
    axes.set_axisbelow(True)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return encode(figure, dpi)


def _stack(axes: Axes, shares: ClassShares, percent: np.ndarray) -> None:
    """Pile up what adds above zero and what takes away below."""
    above, below = np.zeros(percent.shape[1]), np.zeros(percent.shape[1])
    for values, name, (colour, pattern) in zip(percent, shares.classes, colours(shares), strict=True):
        up, down = above + np.maximum(values, 0), below + np.minimum(values, 0)
        label = shorten(name, MAX_NAME).replace("$", r"\$").lstrip("_")
        for low, high, shown in ((above, up, label), (below, down, "_")):  # an underscore keeps out of the legend
            area = axes.fill_between(shares.epochs, low, high, label=shown, facecolor=colour, linewidth=0.3)
            area.set(hatch=HATCHES[pattern], edgecolor="white")
        above, below = up, down
    axes.plot(shares.epochs, percent.sum(axis=0), color=INK, linestyle="--", linewidth=1, label="sum of all classes")
