"""Tables and sentences on all coresets of a run: by budget with their cost, transferred ones, logged distances."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import pandas as pd

from tasks.figures.interpretation.budgets import DISTANCES
from tasks.report import formats
from tasks.report.cells import Cell, Column, Table, float_in, number_cell, spread_cell, text_cell
from tasks.report.findings import Finding
from tasks.report.interpretation.findings import ROUNDING

Grouped = Sequence[tuple[str, str, Cell]]  # head above, head, cell
VANISHED = 0.01  # weight of a neighbour below which it plays no part
PARTS = ("selection", "features", "evaluation", "scores")


def budget_table(over_repeats: pd.DataFrame) -> Table:
    """List every coreset of a network: distances, nulls, ranks, accuracy, units and the cost of each part."""
    cells: list[tuple[str, str, Cell]] = [
        ("", "interpreter", text_cell("interpreter")),
        ("", "selector", text_cell("selector")),
        ("", "budget", number_cell("budget", formats.budget)),
        ("", "images kept", number_cell("n_kept_mean", formats.count)),
    ]
    for suffix, label in DISTANCES.items():
        cells.append((label, "Φ", spread_cell(f"phi_{suffix}_mean", f"phi_{suffix}_std", formats.radians_spread)))
        cells.append((label, "null", number_cell(f"null_{suffix}_mean", formats.radians)))
    cells += [
        ("compared", "rank", number_cell("rank_mean", formats.count)),
        ("compared", "rank, full data", number_cell("rank_reference_mean", formats.count)),
        ("compared", "rows of a distance", number_cell("n_rows_mean", formats.count)),
        ("compared", "left out", number_cell("left_out_mean", formats.count)),
        ("accuracy", "rebuilt", spread_cell("accuracy_mean", "accuracy_std", formats.share_spread)),
        (
            "accuracy",
            "without units",
            spread_cell("accuracy_without_mean", "accuracy_without_std", formats.share_spread),
        ),
        ("accuracy", "unmodified", number_cell("accuracy_plain_mean", formats.share)),
        ("units a class", "units", number_cell("units_mean", formats.count)),
        ("units a class", "layers skipped", number_cell("layers_skipped_mean", formats.count)),
    ]
    for part in PARTS:
        cells.append((part, "time", number_cell(f"{part}_seconds_mean", formats.seconds)))
        cells.append((part, "memory", number_cell(f"{part}_peak_mb_mean", formats.megabytes)))
    caption = (
        "Coresets against the full data: Φ in radians, mean over classes ± std over draws and seeds. Time and peak "
        "memory of the stages of one coreset; work that stages share is divided evenly. Features of units include the "
        "sums of smaller budgets that theirs grow from; only first draws have scores"
    )
    return _print(over_repeats, caption, cells, words=2, csv="data/over_repeats.csv")


def transfer_table(transfer: pd.DataFrame) -> Table:
    """List transferred coresets next to the network's own."""
    signed = {"phi_0": _radians_gap, "accuracy": _share_gap, "accuracy_without": _share_gap}
    forms = {"phi_0": formats.radians, "accuracy": formats.share, "accuracy_without": formats.share}
    heads = {"phi_0": "Φ, α = 0", "accuracy": "accuracy, rebuilt", "accuracy_without": "accuracy without units"}
    names = ("interpreter", "selector")
    cells: list[tuple[str, str, Cell]] = [
        ("", "network", text_cell("network")),
        ("", "coresets of", text_cell("coreset_from")),
        *(("", name, text_cell(name)) for name in names),
        ("", "budget", number_cell("budget", formats.budget)),
    ]
    for name, head in heads.items():
        if f"{name}_own" in transfer:
            cells.append((head, "own", number_cell(f"{name}_own", forms[name])))
            cells.append((head, "transferred", number_cell(f"{name}_transferred", forms[name])))
            cells.append((head, "difference", signed[name](name)))
    caption = (
        "Coresets that another network selected, next to the network's own: means over draws and the classes with both "
        "values, difference ± standard error over classes"
    )
    return _print(transfer, caption, cells, words=4, csv="data/transfer.csv")


def transfer_findings(summary: pd.DataFrame) -> list[Finding]:
    """State for each network and sender how far transferred coresets differ from the network's own."""
    listed = []
    for (network, sender), rows in summary.groupby(["network", "coreset_from"], sort=False):
        said = [_transferred(row) for _, row in rows.iterrows()]
        selectors = ", ".join(dict.fromkeys(name for names in rows["selectors"] for name in names))
        lead = f"{network} with coresets of {sender} ({selectors}), next to its own, budgets below 100 %:"
        listed.append(Finding("Transfer", f"{lead} {' '.join(said)}"))
    return listed


def _transferred(row: pd.Series) -> str:
    """Describe the differences of one interpreter; a difference counts beyond two standard errors."""
    value, error = float_in(row, "phi_0_difference"), float_in(row, "phi_0_error")
    verdict = "no difference beyond noise"
    if not np.isfinite(error):
        verdict = "noise is unknown with a single class"
    elif abs(value) > max(2 * error, ROUNDING):
        verdict = "farther from the full data" if value > 0 else "nearer to the full data"
    known = np.isfinite(value)
    texts = [f"Φ {_gap_text(value, error)} rad, {verdict}" if known else "no class has a distance with both coresets"]
    for measure, head in (("accuracy", "accuracy"), ("accuracy_without", "accuracy without units")):
        value = float_in(row, f"{measure}_difference")
        if np.isfinite(value):
            texts.append(f"{head} {formats.signed_points(value, float_in(row, f'{measure}_error'))}")
    return f"{row['interpreter']}: {'; '.join(texts)}."


def topics_table(topics: pd.DataFrame) -> Table:
    """List how far the topics of each coreset suffice, their near-duplicates, and the most important ones."""
    keys = ["network", "seed", "selector", "repeat", "budget"]
    rows = []
    for key, part in topics.groupby(keys, sort=True, observed=True):
        best = part.sort_values("shapley", ascending=False, kind="stable").head(3)
        named = ", ".join(
            f"{int(t)} ({formats.measure(s)})" for t, s in zip(best["topic"], best["shapley"], strict=True)
        )
        row: dict[str, object] = dict(zip(keys, key, strict=True))
        row |= {name: part[name].iloc[0] for name in ("completeness", "accuracy", "duplicates")}
        rows.append(row | {"nearest": part["nearest_cosine"].max(), "best": named})
    cells: Grouped = [
        ("", "network", text_cell("network")),
        ("", "seed", text_cell("seed")),
        ("", "selector", text_cell("selector")),
        ("", "budget", number_cell("budget", formats.budget)),
        ("", "completeness", number_cell("completeness", formats.measure)),
        ("", "accuracy", number_cell("accuracy", formats.share)),
        ("", "near-duplicate pairs", number_cell("duplicates", formats.count)),
        ("", "largest cosine", number_cell("nearest", formats.measure)),
        ("", "topics of largest ConceptSHAP", text_cell("best")),
    ]
    caption = (
        "Topics of the first draws: completeness, accuracy with rebuilt maps, pairs of topics with a cosine above "
        "0.95, and the three topics that add most to the completeness"
    )
    return _print(pd.DataFrame(rows), caption, cells, words=3, csv="data/topics.csv")


def neighbour_findings(selections: pd.DataFrame) -> list[Finding]:
    """Say where neighbours play no part in dgpruning, since the exponentials of their distances vanish."""
    if "median_distance" not in selections:
        return []
    logged = selections.dropna(subset=["median_distance"])
    found = []
    for (network, selector), rows in logged.groupby(["network", "selector"], sort=False):
        distance, first = float(rows["median_distance"].median()), rows.iloc[0]
        text = f"{network}, {selector}: the median distance to a neighbour is {formats.measure(distance)}, "
        found.append(Finding("Neighbours", text + _neighbours(distance, first)))
    return found


def _neighbours(distance: float, settings: pd.Series) -> str:
    """Say whether neighbours at a distance change densities, and whether chosen samples lower those of theirs."""
    if settings["scale"] == "median" and distance > 0:
        return "and distances are divided by it, so neighbours count."
    near, far = (float(np.exp(-settings[name] * distance)) for name in ("gamma_f", "gamma_r"))
    adds, lowers = near >= VANISHED, settings["message"] == "absolute" or far >= VANISHED
    if settings["combine"] == "product" and near > 0:  # however small the weights are, they order the samples
        return "so neighbours count: a density is a product with what they add."
    if settings["combine"] == "product":
        return (
            "so exp(−gamma_f d) is 0. Densities are products with it: most are 0, and of equal ones the first samples "
            "are kept. `scale: median` makes neighbours count."
        )
    if adds and lowers:
        return f"so neighbours count (exp(−gamma_f d) is {formats.measure(near)})."
    if adds:
        return (
            f"so neighbours add to a sample's density (exp(−gamma_f d) is {formats.measure(near)}). Samples that are "
            f"chosen do not lower it (exp(−gamma_r d) is {far:.0e})."
        )
    if lowers:
        by = "all of theirs" if settings["message"] == "absolute" else f"exp(−gamma_r d) is {formats.measure(far)}"
        return (
            f"so exp(−gamma_f d) is {near:.0e}. Neighbours add nothing to a sample's density; they still lower it "
            f"({by}). `scale: median` makes them count."
        )
    return (
        f"so exp(−d) is at most {max(near, far):.0e}. Neighbours play no part, and the samples farthest from the "
        "centre are kept. `scale: median` makes neighbours count."
    )


def _print(frame: pd.DataFrame, caption: str, cells: Grouped, *, words: int, csv: str) -> Table:
    """Print each row by its cells, under heads of groups."""
    columns = tuple(Column(title, numeric=i >= words) for i, (_, title, _) in enumerate(cells))
    rows = tuple(tuple(cell(row) for _, _, cell in cells) for _, row in frame.iterrows())
    groups = tuple((head, len(list(run))) for head, run in groupby(head for head, _, _ in cells))
    return Table(caption, columns, rows, groups if any(head for head, _ in groups) else (), csv=csv)


def _radians_gap(name: str) -> Cell:
    """Return a cell with a difference of distances ± its error."""
    return lambda row: _gap_text(float_in(row, f"{name}_difference"), float_in(row, f"{name}_error"))


def _share_gap(name: str) -> Cell:
    """Return a cell with a difference of shares ± its error, in points."""

    def cell(row: pd.Series) -> str:
        value, error = float_in(row, f"{name}_difference"), float_in(row, f"{name}_error")
        return formats.signed_points(value, error) if np.isfinite(value) else formats.MISSING

    return cell


def _gap_text(value: float, error: float) -> str:
    """Print a difference of distances with its sign."""
    sign = "+" if value >= 0 else ""
    return formats.minus(sign + formats.radians_spread(value, error)) if np.isfinite(value) else formats.MISSING
