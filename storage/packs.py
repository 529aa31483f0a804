"""The partition records of finished stages: one object each, and many records in one object for readers.

While a stage is made, every partition has a record of its own, so that a crash loses the partitions in flight alone.
When a stage of arrays with many partitions is sealed, such as one of 1,000 classes, its records are written again,
packed: a reader asks for one object in place of 1,000. The single records stay. A late writer of another run looks for
that of its partition, and programs that know no packs read them. Trainings have single records alone, which others
read while they run.
"""

import json
from collections.abc import Iterable, Mapping

from storage.documents import DamagedError, Document, decode_document, encode, require
from storage.layouts import Layout
from storage.memory import recall, remember
from storage.notes import checked_marker, marker_path
from storage.stores import Store

PACKED = 64  # partitions from which on records are packed
RECORDS = 1024  # in one object, at most
KEY = "packed"  # of a completion record: how many records an object has
MANY = "records"  # of an object with many

Found = Document | FileNotFoundError | NotADirectoryError | DamagedError


def may_pack(layout: Layout) -> bool:
    """Say whether a stage is sealed with its partition records packed."""
    return bool(layout.arrays) and layout.partitions >= PACKED


def pack_records(path: str, layout: Layout, markers: Mapping[int, Document]) -> dict[str, bytes]:
    """Return the objects, by path, that hold all partition records of the stage at `path`; none where it has few."""
    starts = range(0, layout.partitions, RECORDS) if may_pack(layout) else ()
    spans = {start: range(start, min(start + RECORDS, layout.partitions)) for start in starts}
    return {pack_path(path, start): encode({MANY: [markers[p] for p in span]}) for start, span in spans.items()}


def pack_path(path: str, partition: int) -> str:
    """Return the path of the object with the records of a partition and of those around it."""
    return f"{path}/markers/partitions-{partition // RECORDS:06d}.json"


def record_path(path: str, note: Document, partition: int) -> str:
    """Return the path of the object with a partition's record, by the completion record of its stage."""
    if KEY not in note:
        return marker_path(path, partition)
    return f"{path}/markers/partitions-{partition // note[KEY]:06d}.json"


def read_records(store: Store, stages: Iterable[tuple[str, Document]]) -> dict[tuple[str, int], Found]:
    """Return all partition records of finished stages, or the errors of reading them; each object is read once.

    Parameters
    ----------
    stages : path and completion record of each
    """
    named = {
        (path, partition): (record_path(path, note, partition), partition % note.get(KEY, 1))
        for path, note in stages
        for partition in range(note["layout"]["partitions"])
    }
    objects = list(dict.fromkeys(name for name, _ in named.values()))
    known: dict[str, list[Document] | Exception] = {
        name: json.loads(raw) for name in objects if (raw := recall(store, name)) is not None
    }
    for name, read in store.read_all([name for name in objects if name not in known]).items():
        known[name] = records = _records(read, name)
        if isinstance(records, list):
            remember(store, name, json.dumps(records).encode())
    return {each: _record(known[name], name, each[1], index) for each, (name, index) in named.items()}


def _records(raw: bytes | Exception, name: str) -> list[Document] | Exception:
    """Return the records in an object, one or many, or the error of reading it."""
    try:
        document = decode_document(raw, name, {})
        return list(require(document, name, {MANY: list})[MANY]) if MANY in document else [document]
    except (FileNotFoundError, NotADirectoryError, DamagedError) as error:
        return error


def _record(found: list[Document] | Exception, name: str, partition: int, index: int) -> Found:
    """Return a partition's record, at an index of those in the object that was read; else the error."""
    if isinstance(found, FileNotFoundError | NotADirectoryError | DamagedError):
        return found
    assert isinstance(found, list)
    try:
        return checked_marker(found[index] if index < len(found) else None, name, partition)
    except DamagedError as error:
        return error
