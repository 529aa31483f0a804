"""Tables as the pages show them: cells of text, made from data frames."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import pandas as pd

from tasks.figures.series import ACCURACIES, DISTANCES
from tasks.report import formats

MAX_CLASSES = 100
MAX_STAGES = 400

Cell = Callable[[pd.Series], str]


@dataclass(frozen=True)
class Column:
    """A column: its head, whether it is numeric (set right), and how strongly each cell is shaded (0..1), if at all."""

    title: str
    numeric: bool = True
    shades: tuple[float, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes
    ----------
    caption : what it shows, with units
    columns : heads; the first column names the row
    rows : cells of text
    groups : a head above the heads: title and number of columns
    note : what is left out, if anything
    csv : file with the full numbers, relative to the page
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    groups: tuple[tuple[str, int], ...] = ()
    note: str = ""
    csv: str = ""


def networks_table(networks: pd.DataFrame) -> Table:
    """List the networks and how well they do unmodified."""
    cells: dict[str, Cell] = {
        "network": _text("network"),
        "seed": _text("seed"),
        "model": _text("model"),
        "layer": _text("layer"),
        "map shape": _text("map_shape"),
        "training images": _number("n_train", formats.count),
        "validation images": _number("n_val", formats.count),
        "top-1": _number("top1", formats.share),
        "top-5": _number("top5", formats.share),
    }
    caption = (
        "Networks, the layer whose maps are explained, and the accuracy of the unmodified network on validation images"
    )
    return _table(networks, caption, cells, words=5, csv="data/networks.csv")


def distance_table(rows: pd.DataFrame) -> Table:
    """List distances, null distances and cost by selector and budget; rows of one network and interpreter."""
    cells: dict[str, Cell] = {
        "selector": _text("selector"),
        "budget": _number("budget", formats.budget),
        "images kept": _number("n_kept_mean", formats.count),
    }
    for suffix in DISTANCES:
        cells[f"phi_{suffix}"] = _mean_std(f"phi_{suffix}", formats.radians_spread)
        cells[f"null_{suffix}"] = _number(f"null_{suffix}_mean", formats.radians)
    cells["classes left out"] = _number("left_out_mean", formats.count)
    cells["fit time, all classes"] = _number("seconds_mean", formats.seconds)
    caption = (
        "Shape distance Φ to the features of the full data and its null, in radians: mean ± std over repeats and seeds"
    )
    table = _table(rows, caption, cells, csv="data/over_repeats.csv")
    return _grouped(table, {"phi": "Φ", "null": "null"})


def accuracy_table(rows: pd.DataFrame) -> Table:
    """List accuracies with reconstructed maps by selector and budget; rows of one network and interpreter."""
    cells: dict[str, Cell] = {"selector": _text("selector"), "budget": _number("budget", formats.budget)}
    for measure, label in ACCURACIES.items():
        cells[label] = _mean_std(measure, formats.share_spread)
    cells["unmodified top-1"] = _number("accuracy_plain_mean", formats.share)
    cells["unmodified top-5"] = _number("accuracy_plain_top5_mean", formats.share)
    cells["error, learning"] = _mean_std("error_fit", formats.share_spread)
    cells["error, validation"] = _mean_std("error_val", formats.share_spread)
    caption = (
        "Accuracy with reconstructed maps, agreement with the unmodified network's prediction, and relative error of "
        "the reconstruction: mean ± std over repeats and seeds"
    )
    return _table(rows, caption, cells, csv="data/over_repeats.csv")


def robustness_table(robustness: pd.DataFrame) -> Table:
    """List mean and standard deviation of Phi over budgets 10-50 %."""
    keys = ("network", "interpreter", "selector")
    measures = [f"{part}_{suffix}" for suffix in DISTANCES for part in ("mean", "std")]
    cells = {key: _text(key) for key in keys}
    cells |= {measure: _spread(measure, f"{measure}_spread", formats.radians_spread) for measure in measures}
    caption = (
        "Robustness: mean and standard deviation of Φ over the budgets from 10 % to 50 %, in radians, "
        "each ± its std over repeats and seeds; lower is better"
    )
    table = _table(robustness, caption, cells, words=len(keys), csv="data/robustness.csv")
    return _grouped(table, {"mean": "mean", "std": "std"})


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


def stage_table(stages: pd.DataFrame) -> Table:
    """List every stage with its cost."""
    cells: dict[str, Cell] = {
        "stage": _text("stage"),
        "of": _text("label"),
        "key": lambda row: formats.text(row["key"])[:12],
        "partitions": _number("partitions", formats.count),
        "time": _number("seconds", formats.seconds),
        "peak memory": _number("peak_mb", formats.megabytes),
        "reused": lambda row: formats.yes_no(row["reused"]),
    }
    caption = "Stages: wall-clock time and peak memory; a reused stage was computed by an earlier run, at that cost"
    table = _table(stages.head(MAX_STAGES), caption, cells, words=3, csv="data/stages.csv")
    note = f"The first {MAX_STAGES} of {len(stages):,} stages." if len(stages) > MAX_STAGES else ""
    return replace(table, note=note)


def cost_table(stages: pd.DataFrame) -> Table:
    """Sum the cost up by kind of stage, in the order of the run."""
    grouped = stages.groupby("stage", sort=False)
    summed = grouped.agg(
        number=("key", "size"), partitions=("partitions", "sum"), reused=("reused", "sum"), peak_mb=("peak_mb", "max")
    )
    summed["seconds"] = grouped["seconds"].sum(min_count=1)
    cells: dict[str, Cell] = {
        "stage": _text("stage"),
        "number": _number("number", formats.count),
        "of these reused": _number("reused", formats.count),
        "partitions": _number("partitions", formats.count),
        "time": _number("seconds", formats.seconds),
        "peak memory": _number("peak_mb", formats.megabytes),
    }
    caption = "Cost by kind of stage: wall-clock time summed, peak memory of the largest"
    return _table(summed.reset_index(), caption, cells, csv="data/stages.csv")


def _grouped(table: Table, names: dict[str, str]) -> Table:
    """Put the columns `{name}_{alpha}` under heads of alpha, printed by their names."""
    columns, groups = [], []
    for column in table.columns:
        name, _, suffix = column.title.rpartition("_")
        columns.append(replace(column, title=names[name]) if name in names else column)
        groups.append(DISTANCES[suffix] if name in names else "")
    spans = tuple((label, len(list(run))) for label, run in groupby(groups))
    return replace(table, columns=tuple(columns), groups=spans)


def _table(frame: pd.DataFrame, caption: str, cells: dict[str, Cell], *, words: int = 1, csv: str = "") -> Table:
    """Print each row by its cells; the first `words` columns are set left."""
    columns = tuple(Column(title, numeric=i >= words) for i, title in enumerate(cells))
    rows = tuple(tuple(cell(row) for cell in cells.values()) for _, row in frame.iterrows())
    return Table(caption, columns, rows, csv=csv)


def _text(column: str) -> Cell:
    """A cell printed as it is."""
    return lambda row: formats.text(row.get(column))


def _number(column: str, form: Callable[[float], str]) -> Cell:
    """A cell printed by its unit; an absent column counts as missing."""
    return lambda row: form(_float(row, column))


def _spread(mean: str, std: str, form: Callable[[float, float], str]) -> Cell:
    """A cell with mean and spread."""
    return lambda row: form(_float(row, mean), _float(row, std))


def _mean_std(measure: str, form: Callable[[float, float], str]) -> Cell:
    """A cell of the table over repeats."""
    return _spread(f"{measure}_mean", f"{measure}_std", form)


def _float(row: pd.Series, column: str) -> float:
    """The number in a column, NaN where there is none."""
    value = row.get(column)
    return float("nan") if value is None else float(value)


def _shades(values: Sequence[float] | np.ndarray) -> tuple[float, ...]:
    """How strongly to shade each distance: linear from 0 to a right angle, the largest possible."""
    return tuple(float(x) for x in np.clip(np.nan_to_num(np.asarray(values, np.float64) / (np.pi / 2)), 0.0, 1.0))
