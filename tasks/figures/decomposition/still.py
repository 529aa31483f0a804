"""Still figures of the decomposition question for a README or a paper: accuracies as PNG bytes."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from tasks.figures.decomposition import depth
from tasks.figures.decomposition.grid_map import MEASURES, grid_of
from tasks.figures.decomposition.method_bars import Bars, ablation_bars, control_bars
from tasks.figures.decomposition.retraining_curves import SCOPES, curve_of
from tasks.figures.series import COLOURS
from tasks.figures.still import MARKERS, STYLES, axes_of, encode
from tasks.figures.views import GREY, INK, fixed, in_percent, shorten, spread_out, whole_step

MAX_TICKS = 8
MAX_NAME = 24  # of a method or a family
MAX_LINE = 44  # characters of a title


def grid_surface(rows: pd.DataFrame, *, measure: str = "accuracy", title: str = "", dpi: int = 150) -> bytes:
    """Draw a measure over k1 and k2 as a surface, k2 = k1 as dots; values of k are at equal distances.

    Parameters
    ----------
    rows : of one network and seed, as `grid_map.grid_of` takes them; a coverage as k1 is last
    measure : "accuracy", "ratio" or "agreement"
    title : above the picture
    dpi : dots per inch of the 6.4 x 4.8 inch picture

    Returns
    -------
    a PNG file
    """
    grid = grid_of(rows)
    values = (1.0 if measure == "ratio" else 100.0) * grid.values[measure]
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(projection="3d")
    axes.set_title(textwrap.fill(title, MAX_LINE), loc="left", parse_math=False)
    across, down = np.meshgrid(np.arange(len(grid.k1)), np.arange(len(grid.k2)))
    if min(values.shape) > 1:
        axes.plot_surface(across, down, values, cmap="Blues", edgecolor=GREY, linewidth=0.4, alpha=0.9)
    else:  # one value of k1 or k2 spans no surface
        axes.plot(across.ravel(), down.ravel(), values.ravel(), color=COLOURS[0], marker="o")
    for i, j in grid.diagonal():
        axes.plot([j], [i], [values[i, j]], color=COLOURS[1], marker="o", markeredgecolor="white", zorder=10)
    ticks = spread_out(len(grid.k1), MAX_TICKS), spread_out(len(grid.k2), MAX_TICKS)
    axes.set_xticks(ticks[0], [grid.k1[j] for j in ticks[0]])
    axes.set_yticks(ticks[1], [str(grid.k2[i]) for i in ticks[1]])
    axes.set(xlabel="k1", ylabel="k2", zlabel=_math(MEASURES[measure][1]))
    return encode(figure, dpi)


def against_depth(networks: pd.DataFrame, *, measure: str = "ratio", title: str = "", dpi: int = 150) -> bytes:
    """Draw r_A, overlap or A_d against depth, a line per family.

    Parameters
    ----------
    networks : as `tasks.figures.decomposition.depth.family_lines` takes them
    measure : "ratio", "overlap_mean" or "a_decomposed"
    title : above the picture
    dpi : dots per inch of the 6.4 x 4 inch picture

    Returns
    -------
    a PNG file
    """
    _, label, scale, _, _ = depth.MEASURES[measure]
    figure, axes = titled_axes(title, 4.0)
    lines = depth.family_lines(networks, measure)
    for i, line in enumerate(lines):
        colour, finite = COLOURS[i % len(COLOURS)], np.isfinite(line.std)
        mean, std = scale * line.mean, scale * line.std
        marker, style = MARKERS[i % len(MARKERS)], STYLES[i % len(STYLES)]
        axes.plot(
            line.depth, mean, color=colour, marker=marker, linestyle=style, label=plain(shorten(line.name, MAX_NAME))
        )
        axes.errorbar(line.depth[finite], mean[finite], yerr=std[finite], fmt="none", ecolor=colour, capsize=3)
    axes.set(xlabel="layers with weights", ylabel=_math(label))
    axes.xaxis.set_major_locator(MultipleLocator(whole_step(n for line in lines for n in line.depth)))
    axes.grid(color="#e6e9ee")
    # A legend of many families is larger than the axes; counted in, it would leave no room for them.
    axes.legend(frameon=False).set_in_layout(False)
    return encode(figure, dpi)


def control_plot(rows: pd.DataFrame, a_full: float, *, k: int, title: str = "", dpi: int = 150) -> bytes:
    """Draw the accuracy of every method to choose k features per class.

    Parameters
    ----------
    rows : of one network and seed, as `tasks.figures.decomposition.method_bars.control_views` takes them
    a_full : accuracy of the full head, 0..1
    k : one of the table's
    title : above the picture
    dpi : dots per inch of the 6.4 inch wide picture

    Returns
    -------
    a PNG file
    """
    at_k = rows[rows["k"] == k]
    if at_k.empty:
        raise ValueError(f"k: expected one of {', '.join(str(each) for each in dict.fromkeys(rows['k']))}, found {k}")
    names, bars = control_bars(at_k)
    return _bars(names, [bars], 100 * a_full, title, dpi)


def ablation_plot(rows: pd.DataFrame, a_full: float, *, scope: str, title: str = "", dpi: int = 150) -> bytes:
    """Draw the accuracy of the full head with noise in some features.

    Parameters
    ----------
    rows : of one network and seed, as `tasks.figures.decomposition.method_bars.ablation_views` takes them
    a_full : accuracy of the full head without noise, 0..1
    scope : one of the table's
    title : above the picture
    dpi : dots per inch of the 6.4 inch wide picture

    Returns
    -------
    a PNG file
    """
    of_scope = rows[rows["scope"] == scope]
    if of_scope.empty:
        raise ValueError(f"scope: expected one of {', '.join(dict.fromkeys(rows['scope']))}, found {scope!r}")
    names, series = ablation_bars(of_scope)
    return _bars(names, series, 100 * a_full, title, dpi)


def retraining_plot(rows: pd.DataFrame, a_full: float, *, title: str = "", dpi: int = 150) -> bytes:
    """Draw accuracy by epoch of retraining, the full head dashed.

    Parameters
    ----------
    rows : of one network and seed, as `tasks.figures.decomposition.retraining_curves.retraining_views` takes them
    a_full : accuracy of the full head, 0..1
    title : above the picture
    dpi : dots per inch of the 6.4 x 4 inch picture

    Returns
    -------
    a PNG file
    """
    figure, axes = titled_axes(title, 4.0)
    for i, scope in enumerate(dict.fromkeys(str(s) for s in rows["scope"])):
        epochs, accuracy = curve_of(rows, scope, "accuracy")
        colour, marker, style = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], STYLES[i % len(STYLES)]
        label = SCOPES.get(scope, scope)
        axes.plot(epochs, 100 * accuracy, color=colour, marker=marker, linestyle=style, label=label)
    axes.axhline(100 * a_full, color=GREY, linestyle="--", linewidth=1.2, label=f"full head, {in_percent(a_full)} %")
    axes.set(xlabel="epoch", ylabel="accuracy (%)")
    axes.xaxis.set_major_locator(MultipleLocator(whole_step(rows["epoch"])))
    axes.grid(color="#e6e9ee")
    axes.legend(frameon=False)
    return encode(figure, dpi)


def titled_axes(title: str, height: float) -> tuple[Figure, Axes]:
    """Return axes below a title of as many lines as it needs, the grid behind what is drawn."""
    lines = textwrap.wrap(title, MAX_LINE)
    figure, axes = axes_of("\n".join(lines), height + 0.2 * max(0, len(lines) - 1))
    axes.set_axisbelow(True)
    return figure, axes


def plain(name: str) -> str:
    """Return a name for a legend: a dollar sign would start a formula, a leading underscore hide the entry."""
    return name.replace("$", r"\$").lstrip("_")


def _bars(names: list[str], series: list[Bars], full: float, title: str, dpi: int) -> bytes:
    """Draw horizontal bars from the top down, the full head dashed."""
    n = len(series)
    figure, axes = titled_axes(title, 1.4 + 0.26 * len(names) * n)
    places, right = np.arange(len(names)), _longest(series, full)
    axes.set_xlim(0, right)
    for i, bars in enumerate(series):
        at = places + (i - (n - 1) / 2) * 0.8 / n
        axes.barh(at, bars.mean, 0.8 / n, color=bars.colours, label=bars.name)
        finite = np.isfinite(bars.std) & np.isfinite(bars.mean)
        axes.errorbar(bars.mean[finite], at[finite], xerr=bars.std[finite], fmt="none", ecolor=INK, capsize=2)
        for y, value, std in zip(at, bars.mean, np.nan_to_num(bars.std), strict=True):
            if np.isfinite(value):
                inside = value > 0.1 * right
                x, colour = (0.0, "white") if inside else (value + std, INK)
                axes.text(x + 0.005 * right, y, fixed(value, 1), color=colour, va="center", fontsize=8)
    if np.isfinite(full):
        axes.axvline(full, color=GREY, linestyle="--", linewidth=1.2, label=f"full head, {fixed(full, 1)} %")
    axes.set_yticks(places, [plain(shorten(name, MAX_NAME)) for name in names])
    axes.invert_yaxis()
    axes.set_xlabel("accuracy (%)")
    axes.grid(axis="x", color="#e6e9ee")
    handles, labels = axes.get_legend_handles_labels()
    labelled = [i for i, label in enumerate(labels) if n > 1 or label.startswith("full head")]
    figure.legend(
        [handles[i] for i in labelled], [labels[i] for i in labelled], loc="outside upper right", ncols=2, frameon=False
    )
    return encode(figure, dpi)


def _longest(series: list[Bars], full: float) -> float:
    """Return where the axis ends: a little beyond all bars, whiskers and the full head, in percent."""
    ends = [bars.mean + np.nan_to_num(bars.std) for bars in series]
    return 1.05 * max(1.0, float(np.nan_to_num(np.concatenate([*ends, [full]])).max()))


def _math(text: str) -> str:
    """Set A_d, A_f and r_A with a subscript."""
    for name in ("A_d", "A_f", "r_A"):
        text = text.replace(name, f"${name[0]}_{name[2]}$")
    return text
