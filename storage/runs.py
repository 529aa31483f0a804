"""Run records: `<store>/_runs/<name>/<time>.json`, written before the first claim and again at the end."""

from dataclasses import dataclass
from datetime import UTC, datetime

from storage.documents import DamagedError, Document, Json, decode, encode
from storage.specs import StageSpec
from storage.stores import Store, StoreError


@dataclass(frozen=True)
class RunRecord:
    """One attempt at a run."""

    name: str
    time: str
    document: Document

    @property
    def path(self) -> str:
        """Where the record lies, relative to the store."""
        return f"_runs/{self.name}/{self.time}.json"

    @property
    def stages(self) -> list[Document]:
        """The run's stages in order: path, title, inputs."""
        found: list[Document] = self.document["stages"]
        return found


def write_record(store: Store, name: str, config: Json, specs: list[StageSpec], facts: Document) -> RunRecord:
    """Write the record of a run that is about to start."""
    time = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    stages = [
        {"path": spec.path, "title": spec.title, "inputs": {role: part.path for role, part in spec.inputs.items()}}
        for spec in specs
    ]
    document: Document = {"name": name, "time": time, "config": config, "stages": stages, "outcome": "running", **facts}
    record = RunRecord(name, time, document)
    store.write(record.path, encode(document))
    return record


def close_record(store: Store, record: RunRecord, outcome: str, **facts: Json) -> None:
    """Write a record again with its outcome: done, failed or interrupted."""
    store.write(record.path, encode({**record.document, "outcome": outcome, **facts}))


def run_names(store: Store) -> list[str]:
    """Return the names of all runs in a store that have a record."""
    return [name for name in store.names("_runs") if store.names(f"_runs/{name}")]


def records(store: Store, name: str) -> list[RunRecord]:
    """Return the records of a run, oldest first; damaged ones raise DamagedError."""
    found = []
    for file in store.names(f"_runs/{name}"):
        path = f"_runs/{name}/{file}"
        found.append(RunRecord(name, file.removesuffix(".json"), decode(store.read(path), path)))
    return found


def choose_run(store: Store, name: str | None) -> str:
    """Return `name`, or the only run of the store.

    Raises
    ------
    StoreError : there is none, several and no name, or not that one
    """
    known = run_names(store)
    if not known:
        raise StoreError(f"{store.url}: no run has been recorded here")
    if name is None and len(known) > 1:
        raise StoreError(f"{store.url}: several runs are here, choose one with --run: {', '.join(known)}")
    if name is not None and name not in known:
        raise StoreError(f"{store.url}: no run {name!r}; known: {', '.join(known)}")
    return name or known[0]


def referenced(store: Store) -> set[str]:
    """Return the paths of all stages that some run refers to.

    A damaged record stops the caller, since what it refers to is unknown.
    """
    paths: set[str] = set()
    for name in run_names(store):
        try:
            paths.update(stage["path"] for record in records(store, name) for stage in record.stages)
        except DamagedError as error:
            raise StoreError(f"{error}; remove that file once its run is not needed, then collect again") from error
    return paths
