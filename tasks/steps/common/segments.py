"""What there is of a training so far: the records and files of its segments, while another process trains on."""

from collections.abc import Iterator

from storage.documents import DamagedError, Document
from storage.notes import read_marker
from storage.specs import StageSpec
from storage.stages import FinishedStage, find_finished, open_finished
from storage.stores import Store


def open_so_far(store: Store, training: StageSpec) -> FinishedStage:
    """Return a training, complete or not, whose files are those of its segments so far; each read is checked."""
    if find_finished(store, training.path) is not None:
        return open_finished(store, training)
    there = set(store.names(f"{training.path}/files"))
    files = {
        name: stated
        for record in _records(store, training)
        for name, stated in record["files"].items()
        if name in there
    }
    return FinishedStage(store, training.path, {"files": files})


def epochs_so_far(store: Store, training: StageSpec) -> list[Document]:
    """Return the metrics of each whole epoch of a training so far: epoch, loss, accuracy, and others."""
    return [epoch for record in _records(store, training) for epoch in record["numbers"]["epochs"]]


def has_segment(store: Store, training: StageSpec, number: int) -> bool:
    """Return whether a segment of a training is complete."""
    try:
        read_marker(store, training.path, number)
    except (FileNotFoundError, NotADirectoryError, DamagedError):
        return False
    return True


def _records(store: Store, training: StageSpec) -> Iterator[Document]:
    """Yield the partition records of the segments, from the first to the last that is there."""
    number = 0
    while has_segment(store, training, number):
        yield read_marker(store, training.path, number)
        number += 1
