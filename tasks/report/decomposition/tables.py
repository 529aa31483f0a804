"""Tables of the decomposition page."""

from dataclasses import replace

import numpy as np
import pandas as pd

from tasks.figures.decomposition.method_bars import NOISES, WHICH, method_name, spreads
from tasks.figures.decomposition.overlap_map import Overlap, nearest_pairs
from tasks.figures.decomposition.retraining_curves import SCOPES
from tasks.figures.views import compact, fixed, in_percent, spread_out
from tasks.report import formats
from tasks.report.cells import Cell, Column, Table, float_in, number_cell, print_table, spread_cell, text_cell
from tasks.report.decomposition.cost import percent

MAX_CLASSES = 100
MAX_ROWS = 200
MAX_PAIRS = 10


def results_table(networks: pd.DataFrame) -> Table:
    """List what decomposing costs each network, and what its sets have in common."""
    cells: dict[str, Cell] = {
        "network": text_cell("network"),
        "seed": text_cell("seed"),
        "A_f": number_cell("a_full", formats.share),
        "A_d": number_cell("a_decomposed", formats.share),
        "r_A": number_cell("ratio", formats.measure),
        "agreement": number_cell("agreement", formats.share),
        "overlap": number_cell("overlap_mean", formats.share),
        "in any set": number_cell("union", formats.count),
        "ties": number_cell("ties", formats.count),
        "full head": number_cell("macs_full", formats.count),
        "decomposed": number_cell("macs_decomposed", formats.count),
        "of the network": number_cell("head_share", percent),
    }
    caption = (
        "Networks decomposed: accuracy of the full and of the decomposed head on held-out images, r_A = A_d / A_f, the "
        "sets' mean overlap, the number of features in any set, classes with a tie at the cut, and the head's "
        "multiply-adds per image with the full head's share of the whole network's"
    )
    table = print_table(networks, caption, cells, words=2, csv="data/decomposition_networks.csv")
    return replace(table, groups=(("", 2), ("accuracy", 4), ("sets", 3), ("multiply-adds", 3)))


def settings_table(networks: pd.DataFrame) -> Table:
    """List the settings of each network."""
    cells: dict[str, Cell] = {
        "network": text_cell("network"),
        "seed": text_cell("seed"),
        "model": text_cell("model"),
        "k1": text_cell("k1"),
        "ranked by": text_cell("rank_by"),
        "grouped by": text_cell("group_by"),
        "learned on": text_cell("learn"),
        "evaluated on": text_cell("evaluate"),
        "preprocessing": text_cell("preprocessing"),
        "k2": number_cell("k2", formats.count),
        "layers": number_cell("depth", formats.count),
        "classes": number_cell("n_classes", formats.count),
        "outputs": number_cell("n_outputs", formats.count),
        "features": number_cell("n_features", formats.count),
        "images learned on": number_cell("n_learn", formats.count),
        "images evaluated": number_cell("n_evaluate", formats.count),
    }
    caption = "Networks and settings: where the sets come from; accuracy depends on the preprocessing"
    table = print_table(networks, caption, cells, words=9, csv="data/decomposition_networks.csv")
    columns = tuple(replace(c, wraps=c.title == "preprocessing") for c in table.columns)
    return replace(table, columns=columns)


def authors_table(compared: pd.DataFrame) -> Table:
    """List the authors' figures and ours."""
    cells: dict[str, Cell] = {
        "network": text_cell("network"),
        "seed": text_cell("seed"),
        "figure": text_cell("figure"),
        "setting": text_cell("setting"),
        "the authors'": _in_unit("authors"),
        "ours": _in_unit("ours"),
        "difference": lambda row: _difference(row),
        "note": text_cell("note"),
    }
    caption = (
        "The authors' figures (Badola et al., Decomposing the Deep) and ours. –: the config does not ask for their k1 "
        "and k2, by magnitude and label"
    )
    table = print_table(compared, caption, cells, words=4, csv="data/decomposition_authors.csv")
    columns = [replace(c, numeric=False, wraps=True) if c.title == "note" else c for c in table.columns]
    return replace(table, columns=tuple(columns))


def grid_table(rows: pd.DataFrame) -> Table:
    """List the cells of the grid."""
    cells: dict[str, Cell] = {
        "k1": text_cell("k1"),
        "k2": number_cell("k2", formats.count),
        "A_d": number_cell("accuracy", formats.share),
        "r_A": number_cell("ratio", formats.measure),
        "agreement": number_cell("agreement", formats.share),
    }
    return _capped(rows, "Accuracy of the decomposed head by k1 and k2", cells, 1, "data/decomposition_grid.csv")


def controls_table(rows: pd.DataFrame) -> Table:
    """List the methods to choose features."""
    rows = rows.assign(chosen_by=[method_name(str(m)) for m in rows["method"]], spread=spreads(rows))
    cells: dict[str, Cell] = {
        "chosen by": text_cell("chosen_by"),
        "k": number_cell("k", formats.count),
        "draws": number_cell("draws", formats.count),
        "A_d": spread_cell("accuracy", "spread", formats.share_spread),
        "r_A": number_cell("ratio", formats.measure),
        "agreement": number_cell("agreement", formats.share),
    }
    caption = "Methods to choose k features per class: accuracy of the decomposed head, ± std over draws"
    return _capped(rows, caption, cells, 1, "data/decomposition_controls.csv")


def ablation_table(rows: pd.DataFrame) -> Table:
    """List the noises."""
    named = {"noise": NOISES, "which": WHICH}
    rows = rows.assign(spread=spreads(rows), **{c: rows[c].map(lambda v, n=n: n.get(v, v)) for c, n in named.items()})
    cells: dict[str, Cell] = {
        "noise": text_cell("noise"),
        "scope": text_cell("scope"),
        "in": text_cell("which"),
        "draws": number_cell("draws", formats.count),
        "accuracy": spread_cell("accuracy", "spread", formats.share_spread),
    }
    caption = "Accuracy of the full head with noise in some features, ± std over draws"
    return _capped(rows, caption, cells, 3, "data/decomposition_ablation.csv")


def retraining_table(rows: pd.DataFrame) -> Table:
    """List the epochs of retraining."""
    rows = rows.assign(what=rows["scope"].map(lambda scope: SCOPES.get(scope, scope)))
    cells: dict[str, Cell] = {
        "retrained": text_cell("what"),
        "epoch": number_cell("epoch", formats.count),
        "accuracy": number_cell("accuracy", formats.share),
        "loss": number_cell("loss", compact),
    }
    caption = "Accuracy on held-out images and training loss by epoch of retraining; epoch 0 is before"
    return _capped(rows, caption, cells, 1, "data/decomposition_retraining.csv")


def sample_table(rows: pd.DataFrame) -> Table:
    """List what sets from few images find, and the accuracy with them."""
    cells: dict[str, Cell] = {
        "images of each class": number_cell("n_images", formats.count),
        "sets found": number_cell("overlap", formats.share),
        "A_d": number_cell("accuracy", formats.share),
    }
    caption = (
        "Sets from the first images of each class, and from all images of a class with fewer: part of the full sets "
        "found, and accuracy with them"
    )
    return _capped(rows, caption, cells, 0, "data/decomposition_sample_need.csv")


def classes_table(classes: pd.DataFrame, coverage: pd.DataFrame) -> Table:
    """List the classes, those that lose most first, with their sets and what these hold."""
    joined = _joined(classes, coverage)
    joined = joined.assign(change=(joined["a_decomposed"] - joined["a_full"]).astype(float))
    joined = joined.sort_values("change", kind="stable")
    cells: dict[str, Cell] = {
        "class": text_cell("class_name"),
        "A_f": number_cell("a_full", formats.share),
        "A_d": number_cell("a_decomposed", formats.share),
        "own k1, l1": number_cell("own_top_share", formats.share),
        "set, l1": number_cell("l1_share", formats.share),
        "set, counts": number_cell("histogram_share", formats.share),
        "set, logit": number_cell("logit_share", formats.share),
        "tie": lambda row: formats.MISSING if pd.isna(row["tie"]) else formats.yes_no(row["tie"]),
        "set": text_cell("indices"),
        "counts": text_cell("counts"),
    }
    caption = (
        "Classes, those that lose most first: accuracy, share held by few features, tie at the cut, the set with the "
        "most frequent feature first, and how often each was counted"
    )
    table = print_table(joined.head(MAX_CLASSES), caption, cells, words=1, csv="data/decomposition_classes.csv")
    words = ("tie", "set", "counts")
    columns = [
        replace(c, numeric=c.numeric and c.title not in words, wraps=c.title in words[1:]) for c in table.columns
    ]
    groups = (("", 1), ("accuracy", 2), ("held by few features", 4), ("", 3))
    note = f"The first {MAX_CLASSES} of {len(joined):,} classes." if len(joined) > MAX_CLASSES else ""
    return replace(table, columns=tuple(columns), groups=groups, note=note)


def pairs_table(overlap: Overlap) -> Table:
    """List the pairs of classes whose sets share most."""
    n = len(overlap.classes)
    total = n * (n - 1) // 2
    rows = tuple((a, b, formats.share(value)) for a, b, value in nearest_pairs(overlap, MAX_PAIRS))
    columns = (Column("class", numeric=False), Column("class", numeric=False), Column("overlap"))
    note = f"The first {MAX_PAIRS} of {total:,} pairs." if total > MAX_PAIRS else ""
    return Table("Classes whose sets have most in common", columns, rows, note=note)


def gates_table(rows: pd.DataFrame) -> Table:
    """List what training with class-specific gates gives."""
    cells: dict[str, Cell] = {
        "images": text_cell("split"),
        "without gates": number_cell("std_accuracy", formats.share),
        "with gates": number_cell("csg_accuracy", formats.share),
        "mean gate": number_cell("mean_gate", formats.measure),
        "sets shared": number_cell("overlap", formats.share),
        "A_d, sets of gates": number_cell("a_decomposed", formats.share),
    }
    caption = (
        "Class-specific gates: accuracy without gates and with the gates of the true class, mean gate (0 to 1), share "
        "of the sets of the largest gates in common with Algorithm 1's, and accuracy of the head decomposed by them"
    )
    return print_table(rows, caption, cells, csv="data/decomposition_gates.csv")


def _capped(rows: pd.DataFrame, caption: str, cells: dict[str, Cell], words: int, csv: str) -> Table:
    """Print at most `MAX_ROWS` rows, evenly spread."""
    shown = rows.iloc[spread_out(len(rows), MAX_ROWS)]
    table = print_table(shown, caption, cells, words=words, csv=csv)
    note = f"{len(shown)} of {len(rows):,} rows, evenly spread." if len(shown) < len(rows) else ""
    return replace(table, note=note)


def _joined(classes: pd.DataFrame, coverage: pd.DataFrame) -> pd.DataFrame:
    """Join by class; two classes of one name are matched by their order."""
    keys = ["network", "seed", "class_name"]
    first, second = (frame.assign(nth=frame.groupby(keys).cumcount()) for frame in (classes, coverage))
    return first.merge(second, on=[*keys, "nth"], how="outer", sort=False)


def _in_unit(column: str) -> Cell:
    """A cell in percent with the paper's two decimals, a ratio of accuracies as a number."""
    return lambda row: (formats.measure if row["figure"] == "r_A" else _hundredths)(float_in(row, column))


def _hundredths(value: float) -> str:
    """Print a share in percent with two decimals."""
    return f"{in_percent(value, 2)}{formats.NBSP}%" if np.isfinite(value) else formats.MISSING


def _difference(row: pd.Series) -> str:
    """Print ours less the authors'."""
    value = float_in(row, "difference")
    if not np.isfinite(value):
        return formats.MISSING
    shown = fixed(value, 3) if row["figure"] == "r_A" else f"{in_percent(value, 2)}{formats.NBSP}points"
    return formats.minus(shown if value < 0 else f"+{shown}")
