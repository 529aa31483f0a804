"""Run records: `<store>/_runs/<name>/<time>.json`, written before the first claim and again at the end.

The log of the same attempt is `<store>/_logs/<name>/<time>.log`.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from storage.documents import DamagedError, Document, Json, encode, read_document, require
from storage.specs import KEY, KIND, StageSpec
from storage.stores import Store, StoreError

TIME = "%Y%m%dT%H%M%S.%fZ"

RECORD = {"outcome": str, "stages": list}  # keys that readers need
STAGE_PATH = re.compile(rf"{KIND.pattern}/{KEY.pattern}")


@dataclass(frozen=True)
class RunRecord:
    """The record of one attempt at a run."""

    name: str
    time: str
    document: Document

    @property
    def path(self) -> str:
        """The path of the record, relative to the store."""
        return f"_runs/{self.name}/{self.time}.json"

    @property
    def stages(self) -> list[Document]:
        """The run's stages in order: path, title, inputs."""
        found: list[Document] = self.document["stages"]
        return found


def write_record(store: Store, name: str, config: Json, specs: list[StageSpec], facts: Document) -> RunRecord:
    """Write the record of a run that is about to start."""
    time = _next_time(store, name)
    stages = [
        {"path": spec.path, "title": spec.title, "inputs": {role: part.path for role, part in spec.inputs.items()}}
        for spec in specs
    ]
    document: Document = {"name": name, "time": time, "config": config, "stages": stages, "outcome": "running", **facts}
    record = RunRecord(name, time, document)
    store.write(record.path, encode(document))
    return record


def log_path(name: str, time: str) -> str:
    """Return the path of the log of one attempt at a run, relative to the store."""
    return f"_logs/{name}/{time}.log"


def _next_time(store: Store, name: str) -> str:
    """Return the time now, or a later one than the last record's, so that records keep their order."""
    now = datetime.now(UTC).strftime(TIME)
    last = max((file.removesuffix(".json") for file in store.names(f"_runs/{name}")), default="")
    if now > last:
        return now
    try:
        return (datetime.strptime(last, TIME) + timedelta(microseconds=1)).strftime(TIME)
    except ValueError:  # a file of another program
        return now


def close_record(store: Store, record: RunRecord, outcome: str, **facts: Json) -> None:
    """Write a record again with its outcome: done, failed or interrupted."""
    store.write(record.path, encode({**record.document, "outcome": outcome, **facts}))


def run_names(store: Store) -> list[str]:
    """Return the names of all runs in a store that have a record.

    Raises
    ------
    DamagedError : a file has the name of a folder of records; the stages of its run are then unknown
    """
    for path in ("_runs", *(f"_runs/{name}" for name in store.names("_runs"))):
        if store.is_file(path) and not path.startswith("_runs/."):
            raise DamagedError(f"{path}: expected a folder, found a file; remove it")
    return [name for name in store.names("_runs") if store.names(f"_runs/{name}")]


def records(store: Store, name: str) -> list[RunRecord]:
    """Return the records of a run, oldest first; damaged ones raise DamagedError."""
    return [read_record(store, name, file) for file in store.names(f"_runs/{name}")]


def read_record(store: Store, name: str, file: str) -> RunRecord:
    """Return one record of a run; DamagedError if it is not a run record."""
    path = f"_runs/{name}/{file}"
    document = read_document(store, path, RECORD)
    for stage in document["stages"]:
        require(stage, f"{path}: a stage", {"path": str, "title": str})
        if not STAGE_PATH.fullmatch(stage["path"]):
            raise DamagedError(f"{path}: a stage: expected a stage's path, found {stage['path']!r}")
    return RunRecord(name, file.removesuffix(".json"), document)


def newest_record(store: Store, name: str) -> RunRecord:
    """Return the last record of a run that has one."""
    return read_record(store, name, store.names(f"_runs/{name}")[-1])


def choose_run(store: Store, name: str | None, kind: str | None = None) -> str:
    """Return `name`, else the only run of the store, or the only run with a stage of `kind` in its last record.

    Raises
    ------
    StoreError : there is no run, no run of this name, or several runs and no name
    """
    known = run_names(store)
    if not known:
        raise StoreError(f"{store.url}: expected the record of a run, found none; `layerlore run` a config first")
    fitting = known
    if name is None and len(known) > 1 and kind is not None:
        fitting = [run for run in known if has_kind(store, run, kind)] or known
    if name is None and len(fitting) > 1:
        raise StoreError(f"{store.url}: expected one run, found {', '.join(fitting)}; choose one with --run")
    if name is not None and name not in known:
        raise StoreError(f"{store.url}: expected one of the runs {', '.join(known)}, found {name!r}")
    return name or fitting[0]


def has_kind(store: Store, name: str, kind: str) -> bool:
    """Say whether the last record of a run has a stage of a kind."""
    return any(stage["path"].startswith(f"{kind}/") for stage in newest_record(store, name).stages)


def referenced(store: Store) -> set[str]:
    """Return the paths of all stages that run records refer to.

    A damaged record raises, since its stages are unknown.
    """
    paths: set[str] = set()
    for name in run_names(store):
        try:
            paths.update(stage["path"] for record in records(store, name) for stage in record.stages)
        except DamagedError as error:
            raise StoreError(f"{error}; remove that file once its run is not needed, then collect again") from error
    return paths
