"""What the completion note and the markers of a stage must hold, whoever wrote them."""

from collections.abc import Iterable, Sequence

from storage.documents import DamagedError, Document, decode_document, decode_intact
from storage.layouts import Layout
from storage.memory import recall, remember
from storage.stores import Store

GROUP = ""  # the name under which the completion note has the group's own metadata
NOTE = dict.fromkeys(("identity", "layout", "arrays", "metadata", "files", "summary"), dict)
MARKER = {"partition": int, "arrays": dict, "files": dict, "numbers": dict}


def read_notes(store: Store, paths: Iterable[str]) -> dict[str, Document]:
    """Return the completion notes of those of the stages at `paths` that have one; each is read once in a run.

    Raises
    ------
    DamagedError : one is not what was written, or no note
    """
    unique = list(dict.fromkeys(paths))
    known = {path: raw for path in unique if (raw := recall(store, path)) is not None}
    read = store.read_all([note_path(path) for path in unique if path not in known])
    notes = {}
    for path in unique:
        if path in known:
            notes[path] = decode_intact(known[path])
        elif not isinstance(found := read[note_path(path)], FileNotFoundError | NotADirectoryError):
            notes[path] = _checked(found, note_path(path))
            assert isinstance(found, bytes)
            remember(store, path, found)
    return notes


def note_path(path: str) -> str:
    """Return where the completion note of the stage at `path` lies."""
    return f"{path}/markers/complete.json"


def _checked(found: bytes | Exception, name: str) -> Document:
    """Return the completion note that was found under a name; DamagedError if it is none."""
    note = decode_document(found, name, NOTE)
    try:
        layout = Layout.of(note["layout"])
    except (KeyError, TypeError, AttributeError, ValueError):
        raise DamagedError(f"{name}: its 'layout' is none") from None
    for part, expected in (("arrays", {*layout.arrays}), ("metadata", {GROUP, *layout.arrays})):
        if note[part].keys() != expected:
            raise DamagedError(f"{name}: its {part!r} are not those of its layout")
    return note


def marker_path(path: str, partition: int) -> str:
    """Return where the marker of a partition of the stage at `path` lies."""
    return f"{path}/markers/{marker_name(partition)}"


def marker_name(partition: int) -> str:
    """Return the file name of a partition's marker."""
    return f"{partition:06d}.json"


def read_marker(store: Store, path: str, partition: int) -> Document:
    """Return the marker of a partition of the stage at `path`; DamagedError if it is none or another's."""
    found = read_markers(store, [(path, partition)])[path, partition]
    if isinstance(found, Exception):
        raise found
    return found


def read_markers(
    store: Store, partitions: Sequence[tuple[str, int]]
) -> dict[tuple[str, int], Document | FileNotFoundError | NotADirectoryError | DamagedError]:
    """Return the markers of partitions, each given by its stage's path and its index, or what is wrong with them."""
    read = store.read_all([marker_path(*each) for each in partitions])
    markers: dict[tuple[str, int], Document | FileNotFoundError | NotADirectoryError | DamagedError] = {}
    for path, partition in partitions:
        name = marker_path(path, partition)
        try:
            marker = decode_document(read[name], name, MARKER)
            if marker["partition"] != partition:
                raise DamagedError(f"{name}: it is the marker of partition {marker['partition']}")
            markers[path, partition] = marker
        except (FileNotFoundError, NotADirectoryError, DamagedError) as error:
            markers[path, partition] = error
    return markers
