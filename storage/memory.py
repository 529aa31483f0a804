"""The completion records, metadata and partition records of finished stages that a process has read during a run.

A record never changes, so it is read once. Its absence is not remembered: another run may finish the stage later.
Workers remember records for the run that sends them work: they get its store.
"""

import uuid
import zlib
from dataclasses import replace

from storage.stores import Store

RUNS = 8  # largest number of runs with remembered records: a worker may serve several

_NOTES: dict[str, dict[str, bytes]] = {}  # by run and by path of the stage; compressed, as a run may have thousands


def remembering(store: Store) -> Store:
    """Return the store with the token of a new run; the store itself if it has a token."""
    return store if store.memory else replace(store, memory=uuid.uuid4().hex)


def remember(store: Store, path: str, note: bytes) -> None:
    """Remember the intact record at `path`, by stage for a completion record, if the store has the token of a run."""
    if store.memory:
        _NOTES.setdefault(store.memory, {})[path] = zlib.compress(note, 1)
        for run in list(_NOTES)[:-RUNS]:  # the oldest runs
            _NOTES.pop(run, None)


def recall(store: Store, path: str) -> bytes | None:
    """Return the record at `path`, by stage for a completion record, if it is remembered."""
    found = _NOTES.get(store.memory, {}).get(path)
    return None if found is None else zlib.decompress(found)


def forget(store: Store, path: str) -> None:
    """Forget the record of a stage that was removed."""
    _NOTES.get(store.memory, {}).pop(path, None)
