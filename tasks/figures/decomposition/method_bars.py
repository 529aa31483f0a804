"""Bars of accuracy with whiskers: methods to choose the features, and features that noise replaces."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd

from tasks.figures.series import COLOURS, Floats
from tasks.figures.views import GREY, INK, Part, View, as_printed, base_layout, fixed, light_axis

METHODS = {  # as the page prints them
    "histogram": "Algorithm 1",
    "class-mean": "class mean",
    "class-mean-minus-overall": "mean − overall",
    "weight": "weight W",
    "abs-weight": "|W|",
    "mean-times-weight": "mean × W",
    "histogram-and-weight": "Algorithm 1 + W",
    "random": "random",
}
WHICH = {"influential": "influential", "equal-size": "as many others", "others": "all others"}
NOISES = {"standard": "N(0, 1)", "zero": "zero", "feature_moments": "own moments"}
HIGHLIGHT, OTHER = COLOURS[0], "#5F6E80"
TEMPLATE = "%{x:.2f} %{customdata}%"
COLOURS_OF = {"influential": COLOURS[0], "equal-size": COLOURS[1], "others": OTHER}


@dataclass(frozen=True)
class Bars:
    """A series of bars.

    Attributes
    ----------
    name : in the legend
    mean, std : (n,) float64, percent; std NaN where there is no whisker
    colours : of each bar
    """

    name: str
    mean: Floats
    std: Floats
    colours: tuple[str, ...]


def method_name(method: str) -> str:
    """Return how a method to choose features is printed; an unknown one as it is."""
    return METHODS.get(method, method)


def spreads(rows: pd.DataFrame) -> Floats:
    """Return the standard deviation over draws (n,), NaN where there was one draw: 0 there would claim certainty."""
    std = rows["accuracy_std"].to_numpy(np.float64) if "accuracy_std" in rows else np.full(len(rows), np.nan)
    draws = rows["draws"].fillna(1).to_numpy(np.float64) if "draws" in rows else np.ones(len(rows))
    return np.where(draws > 1, std, np.nan)


def control_bars(rows: pd.DataFrame) -> tuple[list[str], Bars]:
    """Return names and bars of one k, Algorithm 1 first, the others by falling accuracy."""
    histogram = (rows["method"] == "histogram").to_numpy()
    order = np.lexsort((-np.nan_to_num(rows["accuracy"].to_numpy(np.float64), nan=-1), ~histogram))
    rows = rows.iloc[order]
    colours = tuple(HIGHLIGHT if method == "histogram" else OTHER for method in rows["method"])
    bars = Bars("accuracy", 100 * rows["accuracy"].to_numpy(np.float64), 100 * spreads(rows), colours)
    return [method_name(str(method)) for method in rows["method"]], bars


def ablation_bars(rows: pd.DataFrame) -> tuple[list[str], list[Bars]]:
    """Return the noises, and bars for influential features, as many others, and all others; rows of one scope."""
    noises = list(dict.fromkeys(str(noise) for noise in rows["noise"]))
    series = []
    for which, name in WHICH.items():
        part = rows[rows["which"] == which].drop_duplicates("noise", keep="last")
        if part.empty:
            continue
        part = part.assign(spread=spreads(part)).set_index("noise").reindex(noises)
        mean, std = (100 * part[column].to_numpy(np.float64) for column in ("accuracy", "spread"))
        series.append(Bars(name, mean, std, (COLOURS_OF[which],) * len(noises)))
    return [NOISES.get(noise, noise) for noise in noises], series


def control_views(rows: pd.DataFrame, a_full: float) -> list[View]:
    """Draw the accuracy of every method to choose k features per class, a view per k.

    Parameters
    ----------
    rows : of one network and seed: method, k, draws, accuracy, accuracy_std (0..1)
    a_full : accuracy of the full head, 0..1
    """
    views = []
    for k, of_k in rows.groupby("k", sort=False):
        names, bars = control_bars(of_k)
        words = f"Accuracy of the decomposed head with {k} features per class by the method that chooses them"
        views.append(_view(f"k = {k}", words, names, [bars], 100 * a_full))
    return views


def ablation_views(rows: pd.DataFrame, a_full: float) -> list[View]:
    """Draw the accuracy of the full head with noise in some features, a view per scope.

    Parameters
    ----------
    rows : of one network and seed: noise, scope, which, draws, accuracy, accuracy_std (0..1)
    a_full : accuracy of the full head without noise, 0..1
    """
    views = []
    for scope, of_scope in rows.groupby("scope", sort=False):
        names, series = ablation_bars(of_scope)
        words = f"Accuracy of the full head with noise in some features, scope {scope}"
        views.append(_view(f"scope {scope}", words, names, series, 100 * a_full))
    return views


def _view(label: str, words: str, names: Sequence[str], series: Sequence[Bars], full: float) -> View:
    """Return horizontal bars from the top down, their numbers inside, and the full head as a dashed line."""
    places = list(range(len(names)))
    data = [_bar(bars, places, legend=len(series) > 1) for bars in series]
    if np.isfinite(full):
        data.append(_full_head(full, len(names)))
    layout = base_layout("") | {
        "height": max(400, 150 + 26 * len(names) * len(series)),
        "hovermode": "closest",
        "barmode": "group",
        "bargap": 0.3,
        "margin": {"l": 16, "r": 16, "t": 16, "b": 56},
        "xaxis": light_axis("accuracy (%)") | {"rangemode": "tozero"},
        "yaxis": {
            **light_axis(""),
            "tickmode": "array",
            "tickvals": places,
            "ticktext": [escape(name) for name in names],
            "showgrid": False,
            "autorange": "reversed",
            "ticks": "",
        },
    }
    return View(label, f"{words}: {_in_words(names, series, full)}", data, layout)


def _bar(bars: Bars, places: Sequence[int], *, legend: bool) -> Part:
    """Return a series of bars with their numbers inside."""
    return {
        "type": "bar",
        "orientation": "h",
        "name": bars.name,
        "y": list(places),
        "x": as_printed(bars.mean, TEMPLATE),
        "marker": {"color": list(bars.colours)},
        "error_x": {
            "type": "data",
            "array": np.round(np.nan_to_num(bars.std), 4).tolist(),
            "color": INK,
            "thickness": 1.5,
            "width": 4 if np.isfinite(bars.std).all() else 0,  # a cap would mark the bars without spread too
        },
        "hovertemplate": TEMPLATE,
        "showlegend": legend,
        "customdata": [f"± {std:.2f} " if np.isfinite(std) else "" for std in bars.std],
        "text": [fixed(mean, 1) if np.isfinite(mean) else "" for mean in bars.mean],
        "textposition": "auto",
        "insidetextanchor": "start",
        "textangle": 0,
    }


def _full_head(full: float, n_names: int) -> Part:
    """Return the accuracy of the full head, in percent, as a dashed line across all bars."""
    return {
        "type": "scatter",
        "mode": "lines",
        "name": f"full head, {fixed(full, 1)} %",
        "x": [round(full, 4)] * 2,
        "y": [-0.5, n_names - 0.5],
        "line": {"color": GREY, "width": 1.5, "dash": "7px,4px"},
        "hoverinfo": "skip",
        "showlegend": True,
    }


def _in_words(names: Sequence[str], series: Sequence[Bars], full: float) -> str:
    """Name every bar that has a value, then the full head."""
    said = "; ".join(
        (f"{bars.name}, " if len(series) > 1 else "")
        + f"{name} {fixed(mean, 1)} %"
        + (f" ± {fixed(std, 1)}" if np.isfinite(std) else "")
        for bars in series
        for name, mean, std in zip(names, bars.mean, bars.std, strict=True)
        if np.isfinite(mean)
    )
    return f"{said}." + (f" The full head reaches {fixed(full, 1)} %." if np.isfinite(full) else "")
