"""Tables of the concepts page."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from tasks.report import formats
from tasks.report.cells import Cell, Column, Table, float_in, number_cell, print_table, text_cell
from tasks.report.concepts.groups import Group
from tasks.report.concepts.results import ConceptFacts

MAX_ROWS = 200
MAX_COMMON = 10  # words of a layer under a detector
OF: dict[str, Cell] = {"network": text_cell("network"), "seed": text_cell("seed"), "detector": text_cell("detector")}


def networks_table(monitor: pd.DataFrame) -> Table:
    """List the networks: how many snapshots, layers and neurons were looked at, and how well they do at the end."""
    rows = []
    for (network, seed), each in monitor.groupby(["network", "seed"], sort=False):
        last = each[each["snapshot"] == each["snapshot"].max()]
        layers = last.drop_duplicates("layer")
        row = {"network": network, "seed": seed, "snapshots": each["snapshot"].nunique(), "layers": len(layers)}
        row |= {"neurons": layers["neurons"].astype(float).sum(), "dead": layers["dead"].astype(float).sum()}
        rows.append(row | {"last": last["label"].iloc[0], "accuracy": last["accuracy"].iloc[0]})
    cells: dict[str, Cell] = {
        "network": text_cell("network"),
        "seed": text_cell("seed"),
        "last snapshot": text_cell("last"),
        "snapshots": number_cell("snapshots", formats.count),
        "layers": number_cell("layers", formats.count),
        "neurons": number_cell("neurons", formats.count),
        "dead": number_cell("dead", formats.count),
        **_if_known(monitor, {"accuracy": formats.share}),
    }
    caption = "Networks and the neurons that were looked at; the numbers are those of the last snapshot"
    names = ["network", "seed", "last", "snapshots", "layers", "neurons", "dead", "accuracy"]
    return print_table(pd.DataFrame(rows, columns=names), caption, cells, words=3)


def detectors_table(facts: ConceptFacts, monitor: pd.DataFrame) -> Table:
    """List the detectors, their parameters and the range of tau."""
    names = dict.fromkeys([*facts.detectors, *monitor["detector"]])
    rows = []
    for name in names:
        tau = monitor.loc[monitor["detector"] == name, "tau"].astype(float).dropna()
        ends = dict.fromkeys(formats.measure(v) for v in (tau.min(), tau.max())) if len(tau) else {}
        rows.append({"detector": name, "parameters": facts.detectors.get(name, ""), "tau": " to ".join(ends)})
    cells = {"detector": text_cell("detector"), "parameters": text_cell("parameters"), "τ": text_cell("tau")}
    table = print_table(pd.DataFrame(rows, columns=["detector", "parameters", "tau"]), "Detectors", cells, words=3)
    columns = (table.columns[0], replace(table.columns[1], wraps=True), table.columns[2])
    return replace(table, columns=columns)


def comparison_tables(groups: Sequence[Group]) -> list[Table]:
    """Set the detectors side by side at the last snapshot, a table per network and seed."""
    pairs = list(dict.fromkeys((group.network, group.seed) for group in groups))
    return [_comparison(*pair, [g for g in groups if (g.network, g.seed) == pair]) for pair in pairs]


def verdicts_table(states: Sequence[tuple[Group, Sequence[str]]], names: Sequence[str]) -> Table:
    """List which observation held for which network, seed and detector."""
    columns = tuple(
        Column(title, numeric=False) for title in ("network", "seed", "detector", *(n.lower() for n in names))
    )
    rows = tuple((group.network, group.seed, group.detector, *verdicts) for group, verdicts in states)
    return Table("The paper's observations of standard training", columns, rows)


def truth_table(truth: pd.DataFrame) -> Table:
    """List the checks of the detectors, each with its null."""

    def number(column: str) -> Cell:
        return lambda row: (formats.count if row["check"] == "detectors" else formats.measure)(float_in(row, column))

    order = {check: i for i, check in enumerate(truth["check"].unique())}
    known = truth.assign(seed=["" if pd.isna(seed) else str(seed) for seed in truth["seed"]])
    known = known.sort_values("check", key=lambda checks: checks.map(order), kind="stable")
    cells: dict[str, Cell] = {
        "check": text_cell("check"),
        "detector": text_cell("detector"),
        "network": text_cell("network"),
        "seed": text_cell("seed"),
        "layer": text_cell("layer"),
        "value": number("value"),
        "by chance": number("baseline"),
        "n": number_cell("n", formats.count),
    }
    caption = "Checks of the detectors: shares 0 to 1, cosines or numbers of neurons, and the null of each"
    return _capped(known, caption, cells, 5, "data/concepts_truth.csv")


def in_order(rows: pd.DataFrame, groups: Sequence[Group], *then: str) -> pd.DataFrame:
    """Sort rows as the page lists networks, seeds, detectors and layers, then by further columns."""
    keys = ["network", "seed", "detector", "layer"]
    listed = (zip(*(group.tables["monitor"][key] for key in keys), strict=True) for group in groups)
    places = {key: i for i, key in enumerate(dict.fromkeys(key for each in listed for key in each))}
    place = [places.get(key, len(places)) for key in zip(*(rows[key] for key in keys), strict=True)]
    return rows.assign(place=place).sort_values(["place", *then], kind="stable").drop(columns="place")


def common_table(common: pd.DataFrame, groups: Sequence[Group]) -> Table:
    """List the most common concepts of each layer at its last snapshot."""
    keys = ["network", "seed", "detector", "layer"]
    last = common[common["snapshot"] == common.groupby(keys[:2])["snapshot"].transform("max")]
    ranked = last.assign(n=last["neurons"].astype(float)).sort_values("n", ascending=False, kind="stable")
    top = ranked[ranked.groupby(keys).cumcount() < MAX_COMMON]
    rows = [
        {
            **dict(zip(keys, key, strict=True)),
            "words": ", ".join(f"{w} {n:.0f}" for w, n in zip(g["word"], g["n"], strict=True)),
        }
        for key, g in top.groupby(keys, sort=False)
    ]
    cells = {**OF, "layer": text_cell("layer"), "words and their neurons": text_cell("words")}
    caption = f"Most common concepts at the last snapshot, at most {MAX_COMMON} of each layer"
    listed = in_order(pd.DataFrame(rows, columns=[*keys, "words"]), groups)
    table = _capped(listed, caption, cells, 5, "data/concepts_common.csv")
    return replace(table, columns=(*table.columns[:4], replace(table.columns[4], wraps=True)))


def change_counts(changes: pd.DataFrame, groups: Sequence[Group]) -> Table:
    """Count the neurons that became and that ceased to be interpretable between snapshots."""
    keys = ["network", "seed", "detector", "layer", "before", "after"]
    counted = changes.assign(
        became=(changes["change"] == "became").astype(int), ceased=(changes["change"] == "ceased").astype(int)
    )
    summed = counted.groupby(keys, sort=False)[["became", "ceased"]].sum().reset_index()
    cells = {
        **OF,
        "layer": text_cell("layer"),
        "between": _between(groups),
        "became": number_cell("became", formats.count),
        "ceased": number_cell("ceased", formats.count),
    }
    caption = "Neurons that became or ceased to be interpretable between two snapshots"
    return _capped(in_order(summed, groups, "before"), caption, cells, 5)


def changes_table(changes: pd.DataFrame, groups: Sequence[Group]) -> Table:
    """List the neurons that became or ceased to be interpretable."""
    cells = {
        **OF,
        "layer": text_cell("layer"),
        "neuron": text_cell("neuron"),
        "between": _between(groups),
        "change": text_cell("change"),
        "word": text_cell("word"),
    }
    rows = in_order(changes, groups, "before", "neuron")
    return _capped(rows, "The neurons and their words", cells, 8, "data/concepts_changes.csv")


def nearest_table(distances: pd.DataFrame) -> Table:
    """List the nearest neuron of each anchor at the last snapshot, nearest first."""
    nearest = distances[~distances["tracked"].astype(bool)]
    last = nearest[nearest["snapshot"] == nearest.groupby(["network", "seed"])["snapshot"].transform("max")]
    cells = {
        "anchor": text_cell("anchor"),
        **OF,
        "layer": text_cell("layer"),
        "neuron": text_cell("neuron"),
        "distance": number_cell("distance", formats.measure),
    }
    caption = "The neuron nearest to each anchor at the last snapshot, nearest first"
    rows = last.sort_values("distance", kind="stable")
    return _capped(rows, caption, cells, 6, "data/concepts_anchor_distances.csv")


def tracked_table(distances: pd.DataFrame) -> Table:
    """List the distance of each tracked neuron to each anchor, at the first and the last snapshot."""
    keys = ["network", "seed", "detector", "layer", "neuron", "anchor"]
    tracked = distances[distances["tracked"].astype(bool)].sort_values("snapshot", kind="stable")
    tracked = tracked.assign(distance=tracked["distance"].astype(float))
    ends = tracked.groupby(keys, sort=False)["distance"].agg(["first", "last"]).reset_index()
    cells = {
        "neuron": text_cell("neuron"),
        **OF,
        "layer": text_cell("layer"),
        "anchor": text_cell("anchor"),
        "first": number_cell("first", formats.measure),
        "last": number_cell("last", formats.measure),
    }
    return _capped(ends, "Distance of tracked neurons to the anchors at the first and the last snapshot", cells, 6)


def monitor_table(monitor: pd.DataFrame) -> Table:
    """List every snapshot of every layer."""
    cells: dict[str, Cell] = {
        **OF,
        "layer": text_cell("layer"),
        "snapshot": text_cell("label"),
        "interpretable": _of_neurons,
        "by chance": number_cell("null_interpretable", formats.count),
        "distinct": number_cell("distinct", formats.count),
        "dead": number_cell("dead", formats.count),
        "d_anchor": number_cell("d_anchor", formats.measure),
        "mean pairwise": number_cell("mean_pairwise", formats.measure),
        **_if_known(monitor, {"accuracy": formats.share, "loss": formats.measure}),
    }
    return _capped(monitor, "Every layer at every snapshot", cells, 5, "data/concepts_monitor.csv")


def _comparison(network: str, seed: str, groups: Sequence[Group]) -> Table:
    """Set the detectors of one network and seed side by side: a row per layer and detector."""
    monitor = pd.concat([g.tables["monitor"] for g in groups], ignore_index=True)
    last = monitor[monitor["snapshot"] == monitor["snapshot"].max()]
    layers = list(dict.fromkeys(last["layer"]))
    cells: dict[str, Cell] = {
        "layer": text_cell("layer"),
        "detector": text_cell("detector"),
        "interpretable": _of_neurons,
        "by chance": number_cell("null_interpretable", formats.count),
        "distinct": number_cell("distinct", formats.count),
        "d_anchor": number_cell("d_anchor", formats.measure),
    }
    when = f" at {last['label'].iloc[0]}" if len(last) else ""
    caption = f"Detectors side by side, {network}, seed {seed}{when}"
    rows = last.sort_values("layer", key=lambda names: names.map(layers.index), kind="stable")
    return print_table(rows, caption, cells, words=2)


def _if_known(rows: pd.DataFrame, forms: dict[str, Callable[[float], str]]) -> dict[str, Cell]:
    """Return the cells of the columns that hold any number."""
    known = [name for name in forms if np.isfinite(rows[name].astype(float)).any()]
    return {name: number_cell(name, forms[name]) for name in known}


def _of_neurons(row: pd.Series) -> str:
    """Print interpretable neurons and what they are of."""
    held, neurons = float_in(row, "interpretable"), float_in(row, "neurons")
    return f"{formats.count(held)} of {formats.count(neurons)}" if np.isfinite(held) else formats.MISSING


def _between(groups: Sequence[Group]) -> Cell:
    """Return a cell that names two snapshots."""
    labels = {(g.network, g.seed): g.labels for g in groups}

    def cell(row: pd.Series) -> str:
        names = labels.get((str(row["network"]), str(row["seed"])), {})
        before, after = int(row["before"]), int(row["after"])
        return f"{names.get(before, before)} and {names.get(after, after)}"

    return cell


def _capped(rows: pd.DataFrame, caption: str, cells: dict[str, Cell], words: int, csv: str = "") -> Table:
    """Print the first `MAX_ROWS` rows and say how many there are."""
    table = print_table(rows.head(MAX_ROWS), caption, cells, words=words, csv=csv)
    return replace(table, note=f"The first {MAX_ROWS} of {len(rows):,} rows." if len(rows) > MAX_ROWS else "")


def attacked_table(attacked: pd.DataFrame, monitor: pd.DataFrame) -> Table:
    """List the accuracy of each snapshot on images as they are, and under attack."""
    at = ["network", "seed", "snapshot"]
    rows = attacked.merge(monitor[[*at, "label"]].drop_duplicates(at), on=at, how="left")
    cells: dict[str, Cell] = {
        "network": text_cell("network"),
        "seed": text_cell("seed"),
        "snapshot": text_cell("label"),
        "accuracy": number_cell("clean", formats.share),
        "under attack": number_cell("robust", formats.share),
        "images": number_cell("images", formats.count),
    }
    return print_table(rows, "Accuracy on images as they are, and under attack", cells, words=3)
