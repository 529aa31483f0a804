"""The archive in a stage: the segments that belong to it, and files that abandoned attempts left.

A stage that records has these metrics in each partition record, one for each segment:

    parent      checkpoint that the segment started from, "" for the first
    initial     the first segment only: checkpoint of the state before step 0
    checkpoint  checkpoint after the segment's last step
    recording   what `tasks.recording.segment.SegmentRecorder.close` returns
"""

from dataclasses import dataclass
from typing import Any

import zarr

from storage.documents import Document
from storage.specs import StageSpec
from storage.stages import FinishedStage, Stage, find_finished, marker_name
from storage.stores import Store, StoreError

STAGE = "updates"  # kind of a recorder's stage


@dataclass(frozen=True)
class Segment:
    """Consecutive steps `start:stop` of a training, recorded together and readable alone.

    Parameters
    ----------
    number : index of the partition
    folder : folder of the segment, below the stage's files
    before, after : checkpoints of the states between which it lies
    kind : kind of the archive
    """

    number: int
    start: int
    stop: int
    folder: str = ""
    before: str = ""
    after: str = ""
    kind: str = ""


def archive_segments(stage: FinishedStage) -> list[Segment]:
    """Return the segments of a finished stage, in order.

    Raises
    ------
    StoreError : the stage recorded nothing
    DamagedError : a partition record is missing or damaged; names it
    """
    found: list[Segment] = []
    for number, marker in enumerate(stage.markers()):
        numbers = marker["numbers"]
        recording = numbers.get("recording")
        if not recording:
            raise StoreError(f"{stage.path}: expected a recorded training, found no record; set `record` and run it")
        before = numbers["parent"] or numbers["initial"]
        span = int(recording["start"]), int(recording["stop"])
        found.append(Segment(number, *span, recording["folder"], before, numbers["checkpoint"], recording["kind"]))
    assert [s.start for s in found] == [0, *(s.stop for s in found[:-1])], stage.path
    return found


def keep_chain(stage: Stage) -> list[Document]:
    """Keep the segments that start where their predecessor ended; remove the partition records of the others.

    The records are read at once, unless the stage has them.

    Returns
    -------
    the partition records of the chain, in order
    """
    folder = f"{stage.spec.path}/markers"
    whole = stage.looked() if stage.seen is None else stage
    seen = whole.seen or {}
    names = stage.store.names(folder) if stage.seen is None else [marker_name(number) for number in sorted(seen)]
    kept: list[Document] = []
    for name in names:
        marker = seen.get(len(kept)) if name == marker_name(len(kept)) else None
        parent = kept[-1]["numbers"]["checkpoint"] if kept else ""
        if marker is not None and marker["numbers"]["parent"] == parent:
            kept.append(marker)
        elif name != "complete.json":
            stage.store.remove(f"{folder}/{name}")
    return kept


def sweep_files(stage: Stage, markers: list[Document]) -> None:
    """Remove every file of a stage that no partition record in `markers` names: files of abandoned attempts."""
    wanted = {name for marker in markers for name in marker["files"]}
    folders = {name.split("/", 1)[0] for name in wanted}
    files = f"{stage.spec.path}/files"
    for name in stage.store.names(files):
        if name not in folders:
            stage.store.remove(f"{files}/{name}")
    for name in stage.store.files(files):
        if name not in wanted:
            stage.store.remove(f"{files}/{name}")


def find_archives(store: Store) -> list[str]:
    """Return the paths of the stages that recorders made or are making in a store."""
    return [f"{STAGE}/{key}" for key in store.names(STAGE)]


def check_free(store: Store, spec: StageSpec) -> None:
    """Raise StoreError unless the archive of `spec` can be started or resumed in this store.

    Raises
    ------
    StoreError : the store holds a finished archive, or the archive of another recording
    """
    for path in find_archives(store):
        finished = find_finished(store, path)
        if finished is not None:
            steps = finished.summary["steps"]
            raise StoreError(
                f"{store.url}: expected an unfinished archive, found a finished one of {steps} steps; "
                "read it, or record elsewhere"
            )
        if path != spec.path:
            raise StoreError(
                f"{store.url}: expected the archive of this recording, found one with {_difference(store, path, spec)}"
            )


def _difference(store: Store, path: str, spec: StageSpec) -> str:
    """Return the first difference between the archive at `path` and `spec`."""
    group = zarr.open_group(store.zarr(f"{path}/data.zarr", read_only=True), mode="r", use_consolidated=False)
    found: Any = group.attrs.asdict().get("layerlore", {})  # Any: JSON
    parameters = found.get("identity", {}).get("parameters", {})
    for name, here in spec.parameters.items():
        there = parameters.get(name)
        if there != here:
            if name == "layers":
                there, here = (", ".join(entry["name"] for entry in side or ()) for side in (there, here))
            return f"{name} {there}, here {here}; record elsewhere or with the first settings"
    return "another version of the format; record elsewhere"
