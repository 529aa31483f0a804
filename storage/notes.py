"""What the completion note and the markers of a stage must hold, whoever wrote them."""

from storage.documents import DamagedError, Document, read_document
from storage.layouts import Layout
from storage.stores import Store

GROUP = ""  # the name under which the completion note has the group's own metadata
NOTE = dict.fromkeys(("identity", "layout", "arrays", "metadata", "files", "summary"), dict)
MARKER = {"partition": int, "arrays": dict, "files": dict, "numbers": dict}


def read_note(store: Store, path: str) -> Document:
    """Return the completion note of the stage at `path`; FileNotFoundError if there is none.

    Raises
    ------
    DamagedError : it is not what was written, or no note
    """
    name = f"{path}/markers/complete.json"
    note = read_document(store, name, NOTE)
    try:
        layout = Layout.of(note["layout"])
    except (KeyError, TypeError, AttributeError, ValueError):
        raise DamagedError(f"{name}: its 'layout' is none") from None
    for part, expected in (("arrays", {*layout.arrays}), ("metadata", {GROUP, *layout.arrays})):
        if note[part].keys() != expected:
            raise DamagedError(f"{name}: its {part!r} are not those of its layout")
    return note


def read_marker_document(store: Store, name: str, partition: int) -> Document:
    """Return the marker of a partition that lies at `name`; DamagedError if it is none or another's."""
    marker = read_document(store, name, MARKER)
    if marker["partition"] != partition:
        raise DamagedError(f"{name}: it is the marker of partition {marker['partition']}")
    return marker
