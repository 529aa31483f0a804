"""Tables of the interpretation page."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
import pandas as pd

from tasks.figures.interpretation.budgets import ACCURACIES, DISTANCES, WITHOUT
from tasks.report import formats
from tasks.report.cells import Cell, Column, Table, number_cell, print_table, spread_cell, text_cell

MAX_CLASSES = 100


def networks_table(networks: pd.DataFrame) -> Table:
    """List the networks and how well they do unmodified."""
    cells: dict[str, Cell] = {
        "network": text_cell("network"),
        "seed": text_cell("seed"),
        "model": text_cell("model"),
        "layer": text_cell("layer_title" if "layer_title" in networks else "layer"),
        "map shape": text_cell("map_shape"),
        "training images": number_cell("n_train", formats.count),
        "validation images": number_cell("n_val", formats.count),
        "top-1": number_cell("top1", formats.share),
        "top-5": number_cell("top5", formats.share),
    }
    caption = (
        "Networks, the layer whose maps are explained, and the accuracy of the unmodified network on validation images"
    )
    if networks["map_shape"].str.contains("set apart").any():
        caption += (
            ". Tokens set apart keep their own values where patches are rebuilt from features: accuracies include what "
            "these tokens carry"
        )
    return print_table(networks, caption, cells, words=5, csv="data/networks.csv")


def distance_table(rows: pd.DataFrame) -> Table:
    """List distances and null distances by selector and budget; rows of one network and interpreter."""
    cells: dict[str, Cell] = {
        "selector": text_cell("selector"),
        "budget": number_cell("budget", formats.budget),
        "images kept": number_cell("n_kept_mean", formats.count),
    }
    if "units_mean" in rows and rows["units_mean"].notna().any():  # a VEBI distance says little without them
        cells["units per class"] = number_cell("units_mean", formats.count)
    for suffix in DISTANCES:
        cells[f"phi_{suffix}"] = _mean_std(f"phi_{suffix}", formats.radians_spread)
        cells[f"null_{suffix}"] = number_cell(f"null_{suffix}_mean", formats.radians)
    cells["classes left out"] = number_cell("left_out_mean", formats.count)
    caption = (
        "Shape distance Φ to the features of the full data and its null, in radians: mean ± std over repeats and seeds"
    )
    table = print_table(rows, caption, cells, csv="data/over_repeats.csv")
    return _grouped(table, {"phi": "Φ", "null": "null"})


def accuracy_table(rows: pd.DataFrame) -> Table:
    """List accuracies with reconstructed maps by selector and budget; rows of one network and interpreter."""
    cells: dict[str, Cell] = {"selector": text_cell("selector"), "budget": number_cell("budget", formats.budget)}
    for measure, label in (ACCURACIES | WITHOUT).items():
        if f"{measure}_mean" in rows and rows[f"{measure}_mean"].notna().any():
            cells[label] = _mean_std(measure, formats.share_spread)
    cells["unmodified top-1"] = number_cell("accuracy_plain_mean", formats.share)
    cells["unmodified top-5"] = number_cell("accuracy_plain_top5_mean", formats.share)
    cells["error, learning"] = _mean_std("error_fit", formats.share_spread)
    cells["error, validation"] = _mean_std("error_val", formats.share_spread)
    caption = (
        "Accuracy with reconstructed maps, agreement with the unmodified network's prediction, and relative error of "
        "the reconstruction: mean ± std over repeats and seeds"
    )
    return print_table(rows, caption, cells, csv="data/over_repeats.csv")


def robustness_table(robustness: pd.DataFrame) -> Table:
    """List mean and standard deviation of Phi over budgets 10-50 %."""
    keys = ("network", "interpreter", "selector")
    cells = {key: text_cell(key) for key in keys}
    for suffix in DISTANCES:
        measures = [f"{part}_{suffix}" for part in ("mean", "std")]
        cells |= {measure: spread_cell(measure, f"{measure}_spread", formats.radians_spread) for measure in measures}
        cells[f"null_{suffix}"] = number_cell(f"null_{suffix}", formats.radians)
    if "units_mean" in robustness:
        cells["units per class"] = number_cell("units_mean", formats.count)
    caption = (
        "Robustness: mean and standard deviation of Φ over the budgets from 10 % to 50 %, in radians, "
        "each ± its std over repeats and seeds, next to the mean null distance; lower is better"
    )
    table = print_table(robustness, caption, cells, words=len(keys), csv="data/robustness.csv")
    return _grouped(table, {"mean": "mean", "std": "std", "null": "null"})


def class_table(classes: pd.DataFrame, csv: str) -> Table:
    """Spread the distances of one network and interpreter out: a row per class, a column per selector and budget."""
    means = classes.groupby(["label", "class_name", "selector", "budget"], observed=True)["distance_0"].mean()
    wide = means.unstack(["selector", "budget"]).sort_index(axis=1)
    n_classes = len(wide)
    if n_classes > MAX_CLASSES:
        worst = wide.mean(axis=1).sort_values(ascending=False, kind="stable").index[:MAX_CLASSES]
        wide = wide.loc[worst]
    names = tuple((f"{label} {name}" if str(label) != name else name,) for label, name in wide.index)
    values = wide.to_numpy(np.float64)
    cells = tuple(tuple(formats.radians(value) for value in row) for row in values)
    columns = [
        Column(formats.budget(float(key[1])), shades=_shades(values[:, i])) for i, key in enumerate(wide.columns)
    ]
    selectors = wide.columns.get_level_values(0)
    left_out = f"Of {n_classes:,} classes the {MAX_CLASSES} with the largest mean distance are shown."
    return Table(
        caption="Shape distance per class, α = 0, in radians, mean over repeats and seeds; – where a class is left out",
        columns=(Column("class", numeric=False), *columns),
        rows=tuple(name + row for name, row in zip(names, cells, strict=True)),
        groups=(("", 1), *((str(name), int((selectors == name).sum())) for name in dict.fromkeys(selectors))),
        note=left_out if n_classes > MAX_CLASSES else "",
        csv=csv,
    )


def _grouped(table: Table, names: dict[str, str]) -> Table:
    """Put the columns `{name}_{alpha}` under heads of alpha, printed by their names."""
    columns, groups = [], []
    for column in table.columns:
        name, _, suffix = column.title.rpartition("_")
        columns.append(replace(column, title=names[name]) if name in names else column)
        groups.append(DISTANCES[suffix] if name in names else "")
    spans = tuple((label, len(list(run))) for label, run in groupby(groups))
    return replace(table, columns=tuple(columns), groups=spans)


def _mean_std(measure: str, form: Callable[[float, float], str]) -> Cell:
    """A cell of the table over repeats."""
    return spread_cell(f"{measure}_mean", f"{measure}_std", form)


def _shades(values: Sequence[float] | np.ndarray) -> tuple[float, ...]:
    """How strongly to shade each distance: linear from 0 to a right angle, the largest possible."""
    return tuple(float(x) for x in np.clip(np.nan_to_num(np.asarray(values, np.float64) / (np.pi / 2)), 0.0, 1.0))
