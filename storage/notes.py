"""Reading of the completion record and the partition records of a stage, with checks of their content."""

from collections.abc import Iterable, Sequence

from storage.documents import DamagedError, Document, Json, decode_document, decode_intact, require
from storage.layouts import Layout
from storage.memory import recall, remember
from storage.stores import Store

GROUP = ""  # the name of the group's own metadata in the completion record
NOTE = dict.fromkeys(("identity", "layout", "arrays", "metadata", "files", "summary"), dict)
MARKER = {"partition": int, "arrays": dict, "files": dict, "numbers": dict}


def read_notes(store: Store, paths: Iterable[str]) -> dict[str, Document]:
    """Return the completion records of the stages at `paths` that have one; each is read once in a run.

    Raises
    ------
    DamagedError : a file is not what was written, or not a completion record
    """
    found = look_for_notes(store, paths)
    for note in found.values():
        if isinstance(note, DamagedError):
            raise note
    return {path: note for path, note in found.items() if not isinstance(note, DamagedError)}


def look_for_notes(store: Store, paths: Iterable[str]) -> dict[str, Document | DamagedError]:
    """Return the completion records of the stages at `paths` that have one, or what is damaged; see `read_notes`."""
    unique = list(dict.fromkeys(paths))
    known = {path: raw for path in unique if (raw := recall(store, path)) is not None}
    read = store.read_all([note_path(path) for path in unique if path not in known])
    notes: dict[str, Document | DamagedError] = {}
    for path in unique:
        if path in known:
            notes[path] = decode_intact(known[path])
        elif not isinstance(found := read[note_path(path)], FileNotFoundError | NotADirectoryError):
            try:
                notes[path] = _checked(found, note_path(path))
            except DamagedError as error:
                notes[path] = error
            else:
                assert isinstance(found, bytes)
                remember(store, path, found)
    return notes


def note_path(path: str) -> str:
    """Return the path of the completion record of the stage at `path`."""
    return f"{path}/markers/complete.json"


def _checked(found: bytes | Exception, name: str) -> Document:
    """Return the completion record that was read at a name; DamagedError if it is damaged."""
    note = decode_document(found, name, NOTE)
    try:
        layout = Layout.of(note["layout"])
    except (KeyError, TypeError, AttributeError, ValueError):
        raise DamagedError(f"{name}: expected a layout in key 'layout', found none") from None
    for part, expected in (("arrays", {*layout.arrays}), ("metadata", {GROUP, *layout.arrays})):
        if note[part].keys() != expected:
            raise DamagedError(f"{name}: expected the arrays of its layout in key {part!r}, found others")
    return note


def marker_path(path: str, partition: int) -> str:
    """Return the path of the record of a partition of the stage at `path`."""
    return f"{path}/markers/{marker_name(partition)}"


def marker_name(partition: int) -> str:
    """Return the file name of a partition's record."""
    return f"{partition:06d}.json"


def read_marker(store: Store, path: str, partition: int) -> Document:
    """Return the record of a partition of the stage at `path`; DamagedError if it is damaged or of another one."""
    found = read_markers(store, [(path, partition)])[path, partition]
    try:
        if isinstance(found, Exception):
            raise found
        return found
    finally:
        del found  # an error holds this frame, and with it all that its callers hold


def read_markers(
    store: Store, partitions: Sequence[tuple[str, int]]
) -> dict[tuple[str, int], Document | FileNotFoundError | NotADirectoryError | DamagedError]:
    """Return the records of partitions, given by stage path and index, or the errors of reading them."""
    read = store.read_all([marker_path(*each) for each in partitions])
    markers: dict[tuple[str, int], Document | FileNotFoundError | NotADirectoryError | DamagedError] = {}
    for path, partition in partitions:
        name = marker_path(path, partition)
        try:
            markers[path, partition] = checked_marker(decode_document(read[name], name, MARKER), name, partition)
        except (FileNotFoundError, NotADirectoryError, DamagedError) as error:
            markers[path, partition] = error.with_traceback(None)  # whose frames hold the error
    return markers


def checked_marker(marker: Json, name: str, partition: int) -> Document:
    """Return what was read at a name; DamagedError unless it is the record of a partition."""
    found = require(marker, name, MARKER)
    if found["partition"] != partition:
        raise DamagedError(f"{name}: expected the record of partition {partition}, found that of {found['partition']}")
    return found
