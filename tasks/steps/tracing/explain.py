"""The results of a finished influence stage for one query, as tables."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from configs.load import ConfigError
from storage.documents import Document
from storage.runs import RunRecord
from storage.stages import FinishedStage, find_finished
from storage.stores import Store, StoreError
from storage.updates.parameters import shown_layer
from tasks.figures.views import in_percent
from tasks.steps.common.manifest import positions

LABEL = re.compile(r"influence (.+? seed \d+|\S+)")  # of a training, in the title of its influence


@dataclass(frozen=True)
class Explanation:
    """The explanation of one query of one network.

    Attributes
    ----------
    title : title of the stage
    query : description of the query, in a line
    parts : a row per layer: init, decay (NaN where it is not known), examples, unrecorded (shares of ||z||^2), residual
    examples : a row per (layer, score, end, rank): sample_id, key, class_name, sum, share (of ||z||^2 or of the logit)
    classes : a row per (layer, class_name), largest sum first: sum and share of ||z||^2
    notes : for each layer with unknown decay, the reason; of a preview, lines on how good each layer's numbers are
    kept : number of examples at either end that a run keeps of its query; None where as many are read as are asked for
    """

    title: str
    query: str
    parts: pd.DataFrame
    examples: pd.DataFrame
    classes: pd.DataFrame
    notes: Mapping[str, str]
    kept: int | None = None

    def tables(self, layers: Sequence[str] | None, count: int) -> list[pd.DataFrame]:
        """Return the parts, the first `count` examples and the `count` largest classes, of some layers or all."""
        examples, classes = self.examples[self.examples["rank"] <= count], self.classes.groupby("layer", sort=False)
        parts = self.parts.astype(object).where(self.parts.notna(), "unknown")
        found = [parts, examples, classes.head(count)]
        if layers is not None:
            found = [table[table["layer"].isin(list(layers))] for table in found]
        return [table.assign(layer=table["layer"].map(shown_layer)) for table in found]


def of_network(labels: Sequence[str], network: str | None) -> list[bool]:
    """Return which labels of trainings, such as `deep seed 0`, are of a network, or of one seed of it; all for None.

    Raises
    ------
    ConfigError : none is
    """
    found = [network is None or f"{label} ".startswith(f"{network} ") for label in labels]
    if not any(found) and labels:
        raise ConfigError(f"--network: expected one of {', '.join(dict.fromkeys(labels))}, found {network!r}")
    return found


def explanations(
    store: Store, record: RunRecord, number: int, layer: str | None = None, network: str | None = None
) -> list[Explanation]:
    """Return the explanations of query `number`, one from each influence stage of a run that traces `layer`.

    Parameters
    ----------
    network : name in the config, or the label of one seed; None for all

    Raises
    ------
    StoreError : the run does not have a finished tracing, or the number of queries is too small
    ConfigError : no stage traces the layer, or none is of the network
    """
    stated = [entry for entry in record.stages if _is_influence(entry)]
    found = [(stage, entry["title"]) for entry in stated if (stage := find_finished(store, entry["path"])) is not None]
    if not found:
        raise StoreError(
            f"run {record.name}: expected a complete tracing, found none; `layerlore run` a config with `tracing` first"
        )
    trained = [LABEL.match(title)[1] for _, title in found]  # type: ignore[index]  # every title matches
    found = list(itertools.compress(found, of_network(trained, network)))
    layers = dict.fromkeys(name for stage, _ in found for name in stage.summary["layers"])
    if layer is not None and layer not in layers:
        raise ConfigError(f"--layer: expected one of {', '.join(layers)}, found {layer!r}")
    asked = [(stage, title) for stage, title in found if layer is None or layer in stage.summary["layers"]]
    inputs = {entry["path"]: entry.get("inputs", {}) for entry in record.stages}
    return [explain(store, stage, number, title, _manifests(inputs, stage.path)) for stage, title in asked]


def explain(
    store: Store, influence: FinishedStage, number: int, title: str, manifests: tuple[str | None, str | None]
) -> Explanation:
    """Return the explanation of query `number` from an influence stage.

    Parameters
    ----------
    manifests : paths of the manifests of the examples and of the queries; None where they are unknown
    """
    queries = find_finished(store, path := influence.summary["queries"])
    if queries is None:
        raise StoreError(f"{path}: expected complete queries of {title}, found none; `layerlore run` its config again")
    ids, labels = queries.read("sample_id"), queries.read("label")
    if not 0 <= number < len(ids):
        raise StoreError(f"query: expected 0 to {len(ids) - 1} in {title}, found {number}")
    keys, own = (None if path is None else keys_of(store, path) for path in manifests)
    names = queries.summary["class_names"]
    key = "" if own is None else f", key {own.loc[int(ids[number])]}"
    label = class_name(names, int(labels[number]))
    query = (
        f"query {number} of {len(ids)}: sample {ids[number]}{key}, class {label}, "
        f"{answered(queries.read('logits')[number], names)}"
    )
    found = explanation_of(read_influence(influence, keys), number, names, (title, query))
    return replace(found, kept=influence.layout.arrays["top_id"].shape[2])


def explanation_of(read: "Influence", number: int, names: Mapping[str, str], said: tuple[str, str]) -> Explanation:
    """Return the explanation of a query; `said` are its title and what the query is."""
    examples = read.examples(names, np.array([number])).drop(columns="query")
    notes = {
        layer: f"layer {layer}: what weight decay did from step {step} on is not known, and stays with the examples"
        for layer, step in unknown_decay(read.summary).items()
    }
    return Explanation(*said, read.parts(number), examples, read.classes(names, number), notes)


def answered(logits: NDArray[np.floating], names: Mapping[str, str]) -> str:
    """Say which class a network predicts from its logits (C,), and with which probability."""
    values = logits.astype(np.float64)
    chances, predicted = np.exp(values - values.max()), int(values.argmax())
    return f"predicted {class_name(names, predicted)} ({in_percent(chances[predicted] / chances.sum())} %)"


def keys_of(store: Store, manifest: str) -> pd.Series:
    """Return the key of each sample of a manifest, by id."""
    found: pd.Series = positions(store, manifest, None).set_index("id")["key"]
    return found


def _manifests(inputs: Mapping[str, Mapping[str, str]], influence: str) -> tuple[str | None, str | None]:
    """Return the manifests of the examples and of the queries of an influence stage, from a run's record."""

    def follow(*roles: str) -> str | None:
        path: str | None = influence
        for role in roles:
            path = inputs.get(path or "", {}).get(role)
        return path

    return follow("contributions", "network", "data"), follow("contributions", "queries", "data")


@dataclass(frozen=True)
class Influence:
    """The arrays of an influence stage in memory, and the keys of the examples by id where they are known."""

    summary: Document
    arrays: Mapping[str, NDArray[Any]]  # Any: integers and floats
    keys: pd.Series | None = None

    def parts(self, number: int) -> pd.DataFrame:
        """Return the parts of each layer's ||z||^2 for a query: a row per layer, with shares and their residual."""
        parts, square = self.arrays["parts"][:, number], self.arrays["square"][:, number]
        table = pd.DataFrame(shares_of(parts, square), columns=self.summary["parts"])
        table = table.assign(layer=self.summary["layers"], residual=residual_of(self.summary, parts, square))
        table.loc[table["layer"].isin(unknown_decay(self.summary)), "decay"] = np.nan
        return table[["layer", *self.summary["parts"], "residual"]]

    def examples(self, names: Mapping[str, str], queries: NDArray[np.int64]) -> pd.DataFrame:
        """Return the first and last examples: a row per (query, ranking, end, rank); shares of cosines are NaN."""
        tables = [
            self._end(names, queries, index, layer, score, end)
            for index, (layer, score) in enumerate(self.summary["rankings"])
            for end in ("top", "bottom")
        ]
        return pd.concat(tables, ignore_index=True)

    def classes(self, names: Mapping[str, str], number: int) -> pd.DataFrame:
        """Return what each class contributed to each layer: a row per (layer, class), largest sum first."""
        tables = []
        for index, layer in enumerate(self.summary["layers"]):
            sums = self.arrays["class_gamma"][index, number].sum(axis=0)
            shares = shares_of(sums[None], self.arrays["square"][index, number][None])[0]
            labels = [class_name(names, label) for label in self.summary["classes"]]
            table = pd.DataFrame({"layer": layer, "class_name": labels, "sum": sums, "share": shares})
            tables.append(table.sort_values("sum", ascending=False, kind="stable"))
        return pd.concat(tables, ignore_index=True)

    def _end(
        self, names: Mapping[str, str], queries: NDArray[np.int64], index: int, layer: str, score: str, end: str
    ) -> pd.DataFrame:
        """Return one end of one ranking."""
        ids, sums, labels = (self.arrays[f"{end}_{kind}"][index, queries] for kind in ("id", "sum", "label"))
        whole = np.broadcast_to(self.arrays["reference"][index, queries, None], sums.shape)
        share = np.divide(sums, whole, out=np.full(sums.shape, np.nan), where=np.isfinite(whole) & (whole != 0))
        k = ids.shape[1]
        return pd.DataFrame(
            {
                "query": np.repeat(queries, k),
                "layer": layer,
                "score": score,
                "end": end,
                "rank": np.tile(np.arange(1, k + 1), len(queries)),
                "sample_id": ids.ravel(),
                "key": "" if self.keys is None else self.keys.loc[ids.ravel().tolist()].to_numpy(),
                "class_name": [class_name(names, label) for label in labels.ravel().tolist()],
                "sum": sums.ravel(),
                "share": share.ravel(),
            }
        )


def read_influence(stage: FinishedStage, keys: pd.Series | None = None) -> Influence:
    """Return an influence stage, read whole: it has few numbers per layer, query and class."""
    return Influence(stage.summary, {name: stage.read(name) for name in stage.layout.arrays}, keys)


def shares_of(values: NDArray[Any], square: NDArray[Any]) -> NDArray[np.float64]:  # Any: floats
    """Return values (layer, ...) as shares of ||z||^2, along the first axes of `values`; 0 where z is 0."""
    whole = square.reshape(*square.shape, *([1] * (values.ndim - square.ndim))).astype(np.float64)
    found: NDArray[np.float64] = np.divide(values, whole, out=np.zeros(values.shape), where=whole > 0)
    return found


def residual_of(summary: Document, parts: NDArray[Any], square: NDArray[Any]) -> NDArray[np.float64]:  # Any: floats
    """Return the residual of parts (layer, ..., part) as a share of ||z||^2; a displacement does not count init."""
    counted = [i for i, name in enumerate(summary["parts"]) if name != "init" or summary["anchor"] == "final"]
    missed: NDArray[np.float64] = np.where(square > 0, shares_of(parts[..., counted].sum(axis=-1), square) - 1.0, 0.0)
    return missed


def _is_influence(entry: Document) -> bool:
    """Return whether a stage of a run's record is an influence stage."""
    return str(entry["path"]).startswith("influence/")


def unknown_decay(summary: Document) -> dict[str, int]:
    """Return, for the layers of an influence stage with unknown decay, the first step where it is unknown."""
    steps = summary.get("decay_unknown_from", [None] * len(summary["layers"]))
    return {layer: int(step) for layer, step in zip(summary["layers"], steps, strict=True) if step is not None}


def class_name(names: Mapping[str, str], label: int) -> str:
    """Return the name of a label, or the label without a name."""
    return names.get(str(label), str(label))
