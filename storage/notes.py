"""Reading of the completion record and the partition records of a stage, with checks of their content."""

from storage.documents import DamagedError, Document, read_document
from storage.layouts import Layout
from storage.stores import Store

GROUP = ""  # the name of the group's own metadata in the completion record
NOTE = dict.fromkeys(("identity", "layout", "arrays", "metadata", "files", "summary"), dict)
MARKER = {"partition": int, "arrays": dict, "files": dict, "numbers": dict}


def read_note(store: Store, path: str) -> Document:
    """Return the completion record of the stage at `path`; FileNotFoundError if there is none.

    Raises
    ------
    DamagedError : it is not what was written, or not a completion record
    """
    name = f"{path}/markers/complete.json"
    note = read_document(store, name, NOTE)
    try:
        layout = Layout.of(note["layout"])
    except (KeyError, TypeError, AttributeError, ValueError):
        raise DamagedError(f"{name}: expected a layout in key 'layout', found none") from None
    for part, expected in (("arrays", {*layout.arrays}), ("metadata", {GROUP, *layout.arrays})):
        if note[part].keys() != expected:
            raise DamagedError(f"{name}: expected the arrays of its layout in key {part!r}, found others")
    return note


def read_marker_document(store: Store, name: str, partition: int) -> Document:
    """Return the partition record at `name`; DamagedError if it is damaged or that of another partition."""
    marker = read_document(store, name, MARKER)
    if marker["partition"] != partition:
        raise DamagedError(f"{name}: expected the record of partition {partition}, found that of {marker['partition']}")
    return marker
