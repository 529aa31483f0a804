"""Which samples of a split are explained: named ones, misclassified ones first, or the first of each class."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from storage.specs import StageSpec
from storage.stages import find_finished, open_finished
from storage.stores import Store
from tasks.engine.survey import Survey
from tasks.steps.common.manifest import positions
from tasks.steps.common.networks import load_network
from tasks.steps.common.pictures import chosen_positions
from tasks.steps.common.samples import read_positions

SAME = "chosen"  # role of the queries of another network, which are taken again
BATCH = 256  # samples in one forward pass
KEY = "tracing.queries.samples"

Ids = NDArray[np.int64]


def query_places(store: Store, spec: StageSpec) -> tuple[Ids, Ids, Ids]:
    """Return the queries' positions in their split, ids and given labels."""
    rows = positions(store, spec.inputs["data"].path, spec.parameters["split"])
    ids, labels = (rows[name].to_numpy(np.int64) for name in ("id", "label_given"))
    chosen = _chosen(store, spec, rows, labels)
    return chosen, ids[chosen], labels[chosen]


def find_samples(rows: pd.DataFrame, samples: Sequence[int | str], split: str, data: str) -> pd.DataFrame:
    """Return the rows of samples in their order.

    Parameters
    ----------
    rows : all samples of a data set, with columns id, key and split
    samples : ids, or keys as text
    data : name of the data set, for errors

    Raises
    ------
    ValueError : ids or keys that the split does not have, or the same sample twice
    """
    at = {**{value: i for i, value in enumerate(rows["id"])}, **{value: i for i, value in enumerate(rows["key"])}}
    if unknown := [sample for sample in samples if sample not in at]:
        raise ValueError(
            f"{KEY}: expected ids or keys of data.{data}, found {_listed(unknown)}; ids are "
            f"{rows['id'].min()} to {rows['id'].max()}, keys are such as {rows['key'].iloc[0]!r}"
        )
    found = rows.iloc[[at[sample] for sample in samples]]
    outside = (found["split"] != split).to_numpy(bool)
    if outside.any():
        others = [sample for sample, out in zip(samples, outside, strict=True) if out]
        raise ValueError(
            f"{KEY}: expected samples of the split {split!r} of data.{data}, found {_listed(others)} of "
            f"{found['split'][outside].iloc[0]!r}; set tracing.queries.split"
        )
    twice = found["id"].duplicated().to_numpy(bool)
    if twice.any():
        raise ValueError(f"{KEY}: expected different samples, found {samples[int(twice.argmax())]!r} twice; remove one")
    return found


def check_samples(spec: StageSpec, survey: Survey) -> None:
    """Raise ValueError where a queries stage names samples that its split does not have."""
    if samples := spec.parameters.get("samples"):
        manifest = spec.inputs["data"]
        find_samples(survey.rows(manifest), samples, spec.parameters["split"], str(manifest.place["name"]))


def _listed(samples: Sequence[int | str]) -> str:
    """Return the first few samples of a list, and their number."""
    named = ", ".join(map(repr, samples[:5]))
    return named if len(samples) <= 5 else f"{named} and {len(samples) - 5} more"


def _chosen(store: Store, spec: StageSpec, rows: pd.DataFrame, labels: Ids) -> Ids:
    """Return the positions of the queries."""
    if samples := spec.parameters.get("samples"):
        name = str(spec.inputs["data"].place["name"])
        return find_samples(rows, samples, spec.parameters["split"], name).index.to_numpy(np.int64)
    if SAME in spec.inputs:
        return _places(rows, open_finished(store, spec.inputs[SAME]).read("sample_id"))
    count = int(spec.parameters["count"])
    if not spec.parameters.get("wrong"):
        return _first_of_classes(labels, count)
    made = find_finished(store, spec.path)
    return _wrong_first(store, spec, count) if made is None else _places(rows, made.read("sample_id"))


def _places(rows: pd.DataFrame, ids: NDArray[np.generic]) -> Ids:
    """Return the positions of ids."""
    at = pd.Series(np.arange(len(rows)), index=rows["id"])
    found: Ids = at.loc[np.asarray(ids).tolist()].to_numpy(np.int64)
    return found


def _first_of_classes(labels: Ids, count: int) -> Ids:
    """Return the first positions of each class, spread over the classes; labels rise."""
    class_ranges = {
        int(label): (int(np.searchsorted(labels, label)), int(np.searchsorted(labels, label, side="right")))
        for label in np.unique(labels)
    }
    return np.array([place for _, _, place in chosen_positions(class_ranges, count)], np.int64)


@lru_cache(maxsize=1)
def _wrong_first(store: Store, spec: StageSpec, count: int) -> Ids:
    """Return misclassified positions class by class, then others; this process keeps them for the partition."""
    import torch

    split = str(spec.parameters["split"])
    labels = positions(store, spec.inputs["data"].path, split)["label_given"].to_numpy(np.int64)
    model, predicted = load_network(store, spec, torch.device("cpu")), []
    with torch.inference_mode():
        for start in range(0, len(labels), BATCH):
            part = np.arange(start, min(start + BATCH, len(labels)))
            predicted.append(model(read_positions(store, spec, split, part).contiguous()).argmax(1).numpy())
    return wrong_first(labels, np.concatenate(predicted), count)


def wrong_first(labels: Ids, predicted: Ids, count: int) -> Ids:
    """Return `count` positions: misclassified ones by turns of the classes, then correct ones in the same manner.

    Parameters
    ----------
    labels, predicted : (n,) int64; labels rise

    Returns
    -------
    (count,) int64, fewer where n is smaller; the wrong ones class by class, then the others class by class
    """
    wrong, right = np.flatnonzero(labels != predicted), np.flatnonzero(labels == predicted)
    first = _by_turns(wrong, labels, count)
    return np.concatenate([first, _by_turns(right, labels, count - len(first))])


def _by_turns(places: Ids, labels: Ids, count: int) -> Ids:
    """Return some positions, rising: the first of each class, the second of each, and so on."""
    turn = pd.Series(labels[places]).groupby(labels[places]).cumcount().to_numpy()
    return np.sort(places[np.argsort(turn, kind="stable")[:count]])
