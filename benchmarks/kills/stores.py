"""What a store holds after a fault, compared with what it should."""

import io
import re
from collections.abc import Iterator

import pandas as pd

from storage.claims import CLAIMS, StageHeldError, claim
from storage.documents import DamagedError, Json, canonical, digest
from storage.layouts import metadata_path
from storage.notes import GROUP
from storage.packs import record_path
from storage.results import read_table, table_bytes
from storage.stages import FinishedStage, find_finished, marker_name
from storage.stores import FORMAT_FILE, PARTIAL, Store
from storage.verify import stage_paths, verify_stage

# A segment of a training's archive has its attempt in its name.
ATTEMPT = re.compile(r"^(segment-\d+)-[0-9a-f]{8}(?=/)")
# What no two runs have in common: times, memory, and in a report which stages were there before the run.
MEASURED = re.compile(r"(.+_)?(seconds|ms|mb)(_.+)?|reused")
RECORD = re.compile(r"/markers/(\d+|complete)\.json$")  # of a partition, or of a stage
REPORTS, RECORDS, LOGS = "reports", "_runs", "_logs"
Digests = dict[str, dict[str, str]]


def torn(store: Store) -> Iterator[str]:
    """Yield what is damaged in stages that look finished: nothing, whenever writers were killed."""
    if store.exists(FORMAT_FILE):
        for path in stage_paths(store):
            yield from verify_stage(store, path)


def records(store: Store) -> dict[str, str]:
    """Return the digest of every record of a finished partition or stage; what is removed meanwhile is left out."""
    found = store.read_all([name for name in store.files("") if RECORD.search(name)])
    return {name: digest(data) for name, data in found.items() if isinstance(data, bytes)}


def redone(before: dict[str, str], after: dict[str, str]) -> Iterator[str]:
    """Yield what was finished before and was made again: its record states when, by which run, and has changed."""
    for name in sorted(before):
        if after.get(name) != before[name]:
            yield f"{name}: was finished, and is {'made again' if name in after else 'lost'}"


def contents(store: Store) -> Digests:
    """Return the digests of stages and reports: all that a run makes."""
    return {**digests(store), **report_digests(store)}


def digests(store: Store) -> Digests:
    """Return the digest of every array and file of every stage, and of what its note states of layout and results.

    Empty for a stage that is not complete.
    """
    found: Digests = {}
    for path in stage_paths(store):
        stage = _finished(store, path)
        found[path] = {} if stage is None else _stage_digests(stage)
    return found


def _finished(store: Store, path: str) -> FinishedStage | None:
    """Return a stage, or None where it is not complete; `torn` names its damage."""
    try:
        return find_finished(store, path)
    except DamagedError:
        return None


def _stage_digests(stage: FinishedStage) -> dict[str, str]:
    """Return the digests of a finished stage."""
    note = stage.note
    parts = {part: digest(canonical(unmeasured(note[part]))) for part in ("layout", "summary")}
    metadata = {f"metadata of {name or 'the group'}": stated for name, stated in note["metadata"].items()}
    files = {ATTEMPT.sub(r"\1", name): stated for name, stated in note["files"].items()}
    return {**parts, **metadata, **note["arrays"], **files}


def unmeasured(value: Json) -> Json:
    """Return a document without what differs between equal runs."""
    if isinstance(value, dict):
        return {key: unmeasured(part) for key, part in value.items() if not MEASURED.fullmatch(key)}
    return [unmeasured(part) for part in value] if isinstance(value, list) else value


def report_digests(store: Store) -> Digests:
    """Return the digest of every file of every report, as far as two runs make the same."""
    found: Digests = {}
    for path in store.files(REPORTS):
        name, _, file = path.partition("/")
        found.setdefault(f"{REPORTS}/{name}", {})[file] = _file_digest(file, store.read(f"{REPORTS}/{path}"))
    return found


def _file_digest(name: str, data: bytes) -> str:
    """Return the digest of a report's file: tables without measured columns; of pages only whether they are whole."""
    if name.endswith(".html"):  # pages show the time, the store and how long everything took
        return "whole" if data.rstrip().endswith(b"</html>") else "torn"
    if name == "made-from":  # the store is a part of it
        return "there"
    if not name.endswith((".csv", ".parquet")):
        return digest(data)
    table = pd.read_csv(io.BytesIO(data)) if name.endswith(".csv") else read_table(data, name)
    return digest(table_bytes(table[[column for column in table if not MEASURED.fullmatch(str(column))]]))


def differences(expected: Digests, found: Digests) -> Iterator[str]:
    """Yield a line per stage or report that is missing, incomplete, too many or has other bytes."""
    for path in sorted({*expected, *found}):
        if found.get(path) != expected.get(path):
            ours, theirs = expected.get(path, {}), found.get(path, {})
            names = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
            yield f"{path}: {len(names)} of {len(ours)} parts differ, such as {names[:3]}"


def left_over(store: Store) -> Iterator[str]:
    """Yield what a finished run should not leave: unfinished and unknown files, claims that would block another run."""
    yield from _strays(store)
    for name in store.names(CLAIMS):
        held, ending, _ = name.rpartition(".")
        if not ending:
            continue  # a look at the clock that was killed: `gc` removes it
        try:
            with claim(store, held, "a look", wait=False):
                pass
        except StageHeldError as error:
            yield f"{held}: {error}"


def _strays(store: Store) -> Iterator[str]:
    """Yield files that are unfinished, lie in no stage, or that their finished stage's note does not know."""
    stages = {path: _finished(store, path) for path in stage_paths(store)}
    known = {name for stage in stages.values() if stage is not None for name in _named(stage)}
    for name in sorted(store.files("")):
        place, stage = name.partition("/")[0], "/".join(name.split("/")[:2])
        if name.endswith(PARTIAL):
            yield f"{name}: left unfinished"
        elif place in (FORMAT_FILE, CLAIMS, RECORDS, LOGS, REPORTS) or name in known:
            continue
        elif stage not in stages or stages[stage] is not None:  # `differences` names an incomplete one
            yield f"{name}: no note names it"


def _named(stage: FinishedStage) -> Iterator[str]:
    """Yield every object that a finished stage consists of."""
    layout, path = stage.layout, stage.path
    yield from (metadata_path(path, name) for name in (GROUP, *layout.arrays))
    for name, array in layout.arrays.items():
        yield from (stage.shard_path(name, partition) for partition in range(array.partitions))
    yield from (f"{path}/files/{name}" for name in stage.note["files"])
    yield from (f"{path}/markers/{marker_name(partition)}" for partition in range(layout.partitions))
    yield from {record_path(path, stage.note, partition) for partition in range(layout.partitions)}
    yield f"{path}/markers/complete.json"
