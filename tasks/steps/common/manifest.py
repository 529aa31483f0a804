"""The manifest stage: a table of a data set's samples, none of which is decoded."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from configs.schema import AnyDataSet
from storage.documents import Document, Json
from storage.layouts import Layout
from storage.results import read_table, table_bytes
from storage.specs import StageSpec
from storage.stages import Stage, find_finished
from storage.stores import Store, StoreError
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.io.digests import source_digest
from tasks.io.files import resolved
from tasks.io.manifest import class_positions, read_class_names, read_manifest
from tasks.io.sources import Source, left_out, open_source

VERSION = 1
FILE = "manifest.parquet"
ROW = 120  # bytes of a row
LOCATIONS = {"paths", "root"}  # digests or resolved paths replace these in the key


def manifest_spec(name: str, data: AnyDataSet, digests_in: Sequence[str] = ()) -> StageSpec:
    """Return the spec of the manifest of a data set.

    Parameters
    ----------
    digests_in : kinds of stages that keep a digest of each sample they read
    """
    given = data.model_dump(mode="json", exclude_defaults=True)
    parameters = {k: v for k, v in given.items() if k not in LOCATIONS} | {"source": data.source}
    place = {"data": _located(data.model_dump(mode="json")), "name": name, "digests_in": list(digests_in)}
    try:
        digests = source_digest(data)
    except ValueError as error:
        raise ValueError(f"data.{name}: {error}") from error
    return MANIFEST.spec(parameters, {}, digests=digests, place=place, label=name)


def _located(data: Document) -> Document:
    """Return the settings with absolute paths, since workers may have another working directory."""

    def locate(value: Json) -> Json:
        if isinstance(value, dict):
            return {key: locate(part) for key, part in value.items()}
        return resolved(value) if isinstance(value, str) else [locate(part) for part in value]

    return {key: locate(value) if key in LOCATIONS and value else value for key, value in data.items()}


def data_of(spec: StageSpec) -> AnyDataSet:
    """Return the data set of a manifest's spec."""
    found: AnyDataSet = TypeAdapter(AnyDataSet).validate_python(spec.place["data"])
    return found


def survey(data: AnyDataSet, table: pd.DataFrame, source: Source) -> Document:
    """Return the facts of a manifest for later stages: labels and counts by split, class names, files left out.

    `source` is the open data set of the table: a second listing of a million files would take a minute.
    """
    splits = {}
    for split, rows in table.groupby("split"):
        labels, counts = np.unique(rows["label_given"].to_numpy(), return_counts=True)
        splits[str(split)] = {"labels": labels.tolist(), "counts": counts.tolist()}
    names = {str(label): name for label, name in distinct_names(read_class_names(data, source)).items()}
    others = left_out(source)
    return {"splits": splits, "class_names": names} | ({"left_out": others} if others else {})


def distinct_names(names: Mapping[int, str]) -> dict[int, str]:
    """Return class names by label; where classes share a name, as ImageNet's two cranes do, each has its label too."""
    times = Counter(names.values())
    return {label: name if times[name] == 1 else f"{name} ({label})" for label, name in names.items()}


def positions(store: Store, path: str, split: str | None) -> pd.DataFrame:
    """Return the manifest rows of a split in class-major order: row p is position p.

    None means all samples of the data set.
    """
    stage = find_finished(store, path)
    if stage is None:
        raise StoreError(f"{path}: expected a complete manifest, found none; `layerlore run` its config again")
    return _positions(store, path, split, stage.note["files"][FILE])


@lru_cache(maxsize=8)
def _positions(store: Store, path: str, split: str | None, sha256: str) -> pd.DataFrame:
    """Return the rows of a split; this process caches them for the same file."""
    stage = find_finished(store, path)
    assert stage is not None, path
    table = read_table(stage.read_file(FILE), f"{path}/files/{FILE}")
    if split is not None:
        table = table[table["split"] == split]
    order = class_positions(table["label_given"].to_numpy(np.int64), table["id"].to_numpy(np.int64))
    return table.iloc[order].reset_index(drop=True)


def _layout(store: Store, spec: StageSpec) -> Layout:
    return Layout(1)


def _partition(work: Work, number: int) -> None:
    """List the data set."""
    with work.stage.partition(number) as part:
        data = data_of(work.stage.spec)
        try:
            source = open_source(data)
            table = read_manifest(data, source)
        except ValueError as error:
            raise ValueError(f"data {work.stage.spec.place['name']}: {error}") from error
        part.write_file(FILE, table_bytes(table))
        part.numbers.update(measured(survey=survey(data, table, source)))


def _summary(stage: Stage) -> Document:
    record = stage.marker(0)
    assert record is not None
    found: Document = record["numbers"]["survey"]
    return found


def _size(spec: StageSpec, survey: Survey) -> Size:
    found = survey.data(spec)
    rows, others = sum(map(found.count, found.summary["splits"])), found.summary.get("left_out")
    return Size(rows * ROW, rows * ROW * 4, f"data.{found.name}: {others}" if others else "")


MANIFEST = Step("manifest", VERSION, _layout, _partition, _size, summary=_summary)
