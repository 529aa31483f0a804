"""What a process remembers of a store for the length of a run: the completion notes that it has read.

A note never changes, so it is read once. That there was none is not remembered: another run may have finished the
stage since. Workers remember for the run that they work for, whose store they get.
"""

import uuid
import zlib
from dataclasses import replace

from storage.stores import Store

RUNS = 8  # of which a process remembers notes: a worker may serve several

_NOTES: dict[str, dict[str, bytes]] = {}  # by run and by path of the stage; compressed, as a run may have thousands


def remembering(store: Store) -> Store:
    """Return the store of a run that begins; the store itself if it is one already."""
    return store if store.memory else replace(store, memory=uuid.uuid4().hex)


def remember(store: Store, path: str, note: bytes) -> None:
    """Remember the intact completion note of the stage at `path`, where the store is one of a run."""
    if store.memory:
        _NOTES.setdefault(store.memory, {})[path] = zlib.compress(note, 1)
        for run in list(_NOTES)[:-RUNS]:  # the oldest
            _NOTES.pop(run, None)


def recall(store: Store, path: str) -> bytes | None:
    """Return the completion note of the stage at `path` if it is remembered."""
    found = _NOTES.get(store.memory, {}).get(path)
    return None if found is None else zlib.decompress(found)


def forget(store: Store, path: str) -> None:
    """Remember nothing of a stage that has been removed."""
    _NOTES.get(store.memory, {}).pop(path, None)
