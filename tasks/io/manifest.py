"""The list of a data set's samples: ids, labels, splits and positions, from a listing alone."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from configs.schema import AnyDataSet, ImageNet, LabelNoise
from tasks.io.samples import MAX_LABEL, Row
from tasks.io.sources import Source, left_out, open_source


def read_manifest(data: AnyDataSet, source: Source | None = None) -> pd.DataFrame:
    """Return the table of a data set's samples.

    Parameters
    ----------
    data : the config's section
    source : the data set if it is open, which saves a second listing for the class names

    Returns
    -------
    table with columns id int64, key str, label_given int64, label_true int64, split str, size int64 (bytes),
    etag str. `id` counts the source's whole fixed order. The same sample has the same id for any `split` and
    `per_class`.
    """
    source = source or open_source(data)
    rows, others = list(source.rows()), left_out(source)
    if not rows:
        raise ValueError("expected samples in the data set, found none" + (f" ({others})" if others else ""))
    table = _table(rows)
    if data.split is not None:
        table = _draw(table, data.split, data.split_seed)
    try:
        _check_classes(table, _splits(data, table), source.class_names())
    except ValueError as error:
        raise ValueError(f"{error} ({others})" if others else str(error)) from error
    return _disturb(_first_per_class(table, data.per_class), data.noise)


def read_class_names(data: AnyDataSet, source: Source | None = None) -> dict[int, str]:
    """Return the class names by label, from the config, else from the source."""
    given = data.class_names or {}
    own = (source or open_source(data)).class_names()
    return {**own, **dict(given if isinstance(given, Mapping) else enumerate(given))}


def class_positions(labels: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the class-major order of samples.

    Parameters
    ----------
    labels : (n,) int64
    ids : (n,) int64

    Returns
    -------
    (n,) int64, indices sorted by label, then id
    """
    return np.lexsort((ids, labels)).astype(np.int64)


def check_labels(labels: NDArray[np.int64], n_outputs: int, data_name: str, data: AnyDataSet | None = None) -> None:
    """Raise ValueError unless every label is an index of a network output; the advice fits the section `data`."""
    bad = labels[(labels < 0) | (labels >= n_outputs)]
    if bad.size:
        mapped = data is None or "classes" in type(data).model_fields
        advice = "map labels by `classes` or change the network" if mapped else "change the network"
        raise ValueError(
            f"data {data_name}: expected labels 0 to {n_outputs - 1}, as the network has {n_outputs} outputs, found "
            f"{bad[0]} ({bad.size} of {labels.size} samples); {advice}"
        )


def _table(rows: list[Row]) -> pd.DataFrame:
    """Return the checked table of all rows of a source."""
    for row in rows:
        if not (isinstance(row.key, str) and isinstance(row.split, str) and isinstance(row.size, int | np.integer)):
            raise ValueError(f"sample {row.key!r}: expected key and split as text and size as an integer, found {row}")
        if isinstance(row.label, bool) or not isinstance(row.label, int | np.integer) or row.label < 0:
            raise ValueError(f"sample {row.key}: expected an integer of at least 0 as label, found {row.label!r}")
        if row.label > MAX_LABEL:
            raise ValueError(
                f"sample {row.key}: expected a label up to {MAX_LABEL}, the largest int64, found {row.label}"
            )
    table = pd.DataFrame(rows, columns=list(Row._fields))
    twice = table["key"][table["key"].duplicated()]
    if len(twice):
        raise ValueError(f"sample {twice.iloc[0]}: expected once in the data set, found twice")
    label = table["label"].astype("int64")
    return pd.DataFrame(
        {
            "id": np.arange(len(table), dtype=np.int64),
            "key": table["key"],
            "label_given": label,
            "label_true": label,
            "split": table["split"],
            "size": table["size"].astype("int64"),
            "etag": table["etag"],
        }
    )


def _draw(table: pd.DataFrame, shares: Mapping[str, float], seed: int) -> pd.DataFrame:
    """Draw the splits per class; samples beyond the shares are dropped."""
    given = sorted(set(table["split"]) - {"all"})
    if given:
        raise ValueError(f"split: expected samples without splits (`all`), found splits {', '.join(given)}")
    split = np.full(len(table), "", dtype=object)
    names = sorted(shares)  # the order of a mapping does not matter
    ends = np.cumsum([0.0, *(shares[name] for name in names)])
    for label, rows in table.groupby("label_given").indices.items():
        shuffled = np.random.default_rng([seed, int(str(label))]).permutation(np.sort(rows))
        bounds = np.rint(ends * len(rows)).astype(int)
        for name, start, stop in zip(names, bounds[:-1], bounds[1:], strict=True):
            split[shuffled[start:stop]] = name
    drawn: pd.DataFrame = table.assign(split=split.astype(str))[split != ""]
    return drawn.reset_index(drop=True)


def _splits(data: AnyDataSet, table: pd.DataFrame) -> list[str]:
    """Return the splits that must have samples."""
    if data.split is not None:
        return sorted(data.split)
    if isinstance(data, ImageNet):
        return ["train", "val"]
    return sorted({*getattr(data, "paths", ()), *table["split"]})


def _check_classes(table: pd.DataFrame, splits: list[str], names: Mapping[int, str]) -> None:
    """Raise ValueError where a class of the source, or of one split, is empty in another split."""
    present = set(zip(table["split"], table["label_given"], strict=True))
    for split in splits:
        for label in sorted({*names, *table["label_given"]}):
            if (split, label) not in present:
                name = f" ({names[label]})" if label in names else ""
                raise ValueError(
                    f"class {label}{name}: expected samples in split {split!r}, found none; add some or leave it out"
                )


def _first_per_class(table: pd.DataFrame, per_class: int | Mapping[str, int] | None) -> pd.DataFrame:
    """Keep the first n samples of each class and split."""
    if per_class is None:
        return table
    splits = sorted(set(table["split"]))
    limits = dict.fromkeys(splits, per_class) if isinstance(per_class, int) else dict(per_class)
    unknown = sorted(set(limits) - set(splits))
    if unknown:
        raise ValueError(f"per_class: expected one of the splits {', '.join(splits)}, found {unknown[0]!r}")
    rank = table.groupby(["split", "label_given"]).cumcount()
    limit = table["split"].map(limits).fillna(len(table))
    return table[rank < limit].reset_index(drop=True)


def _disturb(table: pd.DataFrame, noise: LabelNoise | None) -> pd.DataFrame:
    """Give some samples a wrong label; the choice is a function of the seed and the split alone."""
    if noise is None:
        return table
    splits = sorted(set(table["split"]))
    given, classes = table["label_given"].to_numpy(np.int64, copy=True), np.unique(table["label_given"])
    for split in noise.splits:
        if split not in splits:
            raise ValueError(f"noise.splits: expected one of the splits {', '.join(splits)}, found {split!r}")
        rows = np.flatnonzero(table["split"] == split)
        rng = np.random.default_rng([noise.seed, splits.index(split)])
        chosen = np.sort(rng.choice(rows, round(noise.share * len(rows)), replace=False))
        if noise.kind == "permute":
            given[chosen] = given[rng.permutation(chosen)]
        elif len(classes) > 1:
            place = np.searchsorted(classes, given[chosen])
            given[chosen] = classes[(place + rng.integers(1, len(classes), len(chosen))) % len(classes)]
    return table.assign(label_given=given)
