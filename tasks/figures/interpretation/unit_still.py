"""Still figures of VEBI's units for a README or a paper: PNG bytes."""

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tasks.figures.interpretation.coverage_map import FULL_DATA, MAX_LABELS, coverage_of, relu_name
from tasks.figures.interpretation.mu_paths import class_paths
from tasks.figures.series import COLOURS
from tasks.figures.still import axes_of, encode
from tasks.figures.views import GREY, spread_out


def coverage_by_layer(rows: pd.DataFrame, *, title: str = "", dpi: int = 150) -> bytes:
    """Draw units by layer and coreset, and next to it the share of the full data's units that each finds.

    Parameters
    ----------
    rows : of one network, as `coverage_map.coverage_of` takes them
    title : above the picture
    dpi : dots per inch of the 9.6 x 4.8 inch picture

    Returns
    -------
    a PNG file
    """
    found = coverage_of(rows)
    figure = Figure(figsize=(9.6, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.01, ha="left", parse_math=False)
    left, right = figure.subplots(1, 2, sharey=True)
    units, shared = np.column_stack([found.full, found.units]), 100 * found.shared
    maps = ((left, units, (FULL_DATA, *found.sets), "units of a class"), (right, shared, found.sets, "also found (%)"))
    for axes, values, sets, label in maps:
        axes.set_facecolor("#d9dee6")  # where the full data has none
        drawn = axes.imshow(values, aspect="auto", cmap="Blues", vmin=0, interpolation="nearest")
        figure.colorbar(drawn, ax=axes, label=label)
        names = [name.replace("$", r"\$") for name in sets]
        axes.set_xticks(range(len(sets)), names, rotation=90, fontsize=8)
    ticks = spread_out(len(found.calls), MAX_LABELS)
    left.set_yticks(ticks, [relu_name(found.calls[i], len(found.calls)) for i in ticks], fontsize=8)
    return encode(figure, dpi)


def units_against_mu(rows: pd.DataFrame, mu: float, *, title: str = "", dpi: int = 150) -> bytes:
    """Draw the units of each class against mu, and the chosen mu.

    Parameters
    ----------
    rows : of one network and set, as `mu_paths.class_paths` takes them
    mu : the chosen bound
    title : above the picture
    dpi : dots per inch of the 6.4 x 3 inch picture

    Returns
    -------
    a PNG file
    """
    figure, axes = axes_of(title, 3.0)
    grid = np.linspace(0.0, mu, 400)
    counts = np.stack([path.at(grid) for path in class_paths(rows)])
    axes.plot(grid, counts.T, color="#9aa3b2", linewidth=0.6)
    axes.plot(grid, np.median(counts, axis=0), color=COLOURS[0], linewidth=2.5, label="median of all classes")
    axes.axvline(mu, color=GREY, linestyle="--", label=f"mu = {mu:g}")
    axes.set(xlabel="bound mu of the sum of a class's weights", ylabel="units of a class", xlim=(0, 1.06 * mu))
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return encode(figure, dpi)
