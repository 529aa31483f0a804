"""What a finished influence stage says of one query, as tables."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from storage.runs import RunRecord
from storage.stages import FinishedStage, find_finished
from storage.stores import Store


@dataclass(frozen=True)
class Explanation:
    """One query of one network.

    Attributes
    ----------
    title : which stage says it
    query : what the query is, in a line
    parts : a row per layer: init, decay, examples, unrecorded (shares of ||z||^2), residual
    examples : a row per (layer, score, end, rank): sample_id, class_name, sum, share (of ||z||^2 or of the logit)
    """

    title: str
    query: str
    parts: pd.DataFrame
    examples: pd.DataFrame


def explanations(store: Store, record: RunRecord, number: int) -> Iterator[Explanation]:
    """Yield what each influence stage of a run says of query `number`.

    Raises
    ------
    ValueError : the run has no finished tracing, or not so many queries
    """
    found = False
    for stated in record.stages:
        if not stated["path"].startswith("influence/"):
            continue
        influence = find_finished(store, stated["path"])
        if influence is not None:
            found = True
            yield explain(store, influence, number, stated["title"])
    if not found:
        raise ValueError(f"run {record.name}: no tracing is complete; `layerlore run` a config with `tracing` first")


def explain(store: Store, influence: FinishedStage, number: int, title: str) -> Explanation:
    """Return what an influence stage says of query `number`."""
    summary = influence.summary
    queries = find_finished(store, summary["queries"])
    assert queries is not None, summary["queries"]
    ids, labels = queries.read("sample_id"), queries.read("label")
    if not 0 <= number < len(ids):
        raise ValueError(f"query {number}: {title} has queries 0 to {len(ids) - 1}")
    logits = queries.read("logits")[number].astype(np.float64)
    chances = np.exp(logits - logits.max())
    predicted = int(logits.argmax())
    names = queries.summary["class_names"]
    query = (
        f"query {number} of {len(ids)}: sample {ids[number]}, class {class_name(names, int(labels[number]))}, "
        f"predicted {class_name(names, predicted)} ({100 * chances[predicted] / chances.sum():.1f} %)"
    )
    return Explanation(title, query, part_table(influence, number), example_table(influence, names, number))


def part_table(influence: FinishedStage, number: int) -> pd.DataFrame:
    """Return what each layer's ||z||^2 is made of for a query: a row per layer, shares that sum to 1 - residual."""
    layers, parts = influence.summary["layers"], influence.read("parts")[:, number]
    square = influence.read("square")[:, number]
    shares = shares_of(parts, square)
    table = pd.DataFrame(shares, columns=influence.summary["parts"]).assign(layer=layers)
    expected = 1.0 if influence.summary["anchor"] == "final" else shares.sum(axis=1)
    return table.assign(residual=shares.sum(axis=1) - expected)[["layer", *influence.summary["parts"], "residual"]]


def shares_of(values: NDArray[np.generic], square: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return values (layer, ...) as parts of ||z||^2, whose axes are the first of `values`; 0 where z is 0."""
    whole = square.reshape(*square.shape, *([1] * (values.ndim - square.ndim))).astype(np.float64)
    found: NDArray[np.float64] = np.divide(values, whole, out=np.zeros(values.shape), where=whole > 0)
    return found


def example_table(influence: FinishedStage, names: dict[str, str], number: int) -> pd.DataFrame:
    """Return the most influential examples at both ends for a query."""
    rows = []
    reference = influence.read("reference")[:, number]
    for index, (layer, score) in enumerate(influence.summary["rankings"]):
        for end in ("top", "bottom"):
            found = [influence.read(f"{end}_{kind}", index, index + 1)[0, number] for kind in ("id", "sum", "label")]
            for rank, (sample, value, label) in enumerate(zip(*found, strict=True)):
                rows.append(
                    {
                        "layer": layer,
                        "score": score,
                        "end": end,
                        "rank": rank + 1,
                        "sample_id": int(sample),
                        "class_name": class_name(names, int(label)),
                        "sum": float(value),
                        "share": float(value / reference[index]) if reference[index] else np.nan,  # NaN for cosines
                    }
                )
    return pd.DataFrame(rows)


def class_name(names: dict[str, str], label: int) -> str:
    """Return a label's name, or the label where it has none."""
    return names.get(str(label), str(label))
