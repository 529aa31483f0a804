"""The archive in a stage: which segments belong to it, and what abandoned attempts left behind.

A stage that records has these numbers in the marker of each partition, one per segment:

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

STAGE = "updates"  # kind of stage that a recorder makes


@dataclass(frozen=True)
class Segment:
    """Consecutive steps `start:stop` of a training, recorded together and readable alone.

    Parameters
    ----------
    number : of the partition
    folder : below the stage's files
    before, after : checkpoints of the states between which it lies
    kind : of the archive
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
    DamagedError : a marker is missing or damaged; names it
    """
    found: list[Segment] = []
    for number, marker in enumerate(stage.markers()):
        numbers = marker["numbers"]
        recording = numbers.get("recording")
        if not recording:
            raise StoreError(f"{stage.path}: this training was not recorded; give its config a `record` and run it")
        before = numbers["parent"] or numbers["initial"]
        span = int(recording["start"]), int(recording["stop"])
        found.append(Segment(number, *span, recording["folder"], before, numbers["checkpoint"], recording["kind"]))
    assert [s.start for s in found] == [0, *(s.stop for s in found[:-1])], stage.path
    return found


def keep_chain(stage: Stage) -> list[Document]:
    """Keep the segments that start where their predecessor ended; drop the markers of the others.

    Returns
    -------
    the markers of the chain, in order
    """
    kept: list[Document] = []
    for name in stage.store.names(f"{stage.spec.path}/markers"):
        marker = stage.marker(len(kept)) if name == marker_name(len(kept)) else None
        parent = kept[-1]["numbers"]["checkpoint"] if kept else ""
        if marker is not None and marker["numbers"]["parent"] == parent:
            kept.append(marker)
        elif name != "complete.json":
            stage.store.remove(f"{stage.spec.path}/markers/{name}")
    return kept


def sweep_files(stage: Stage, markers: list[Document]) -> None:
    """Remove every file of a stage that none of `markers` names: what abandoned attempts wrote."""
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
    """Raise unless `spec` may be begun, or gone on with, in this store.

    Raises
    ------
    StoreError : the store has a finished archive, or one of another recording
    """
    for path in find_archives(store):
        finished = find_finished(store, path)
        if finished is not None:
            steps = finished.summary["steps"]
            raise StoreError(f"{store.url}: its archive of {steps} steps is finished; read it, or record elsewhere")
        if path != spec.path:
            raise StoreError(f"{store.url}: an unfinished archive is here, with {_difference(store, path, spec)}")


def _difference(store: Store, path: str, spec: StageSpec) -> str:
    """Name the first thing in which the archive at `path` differs from `spec`."""
    group = zarr.open_group(store.zarr(f"{path}/data.zarr", read_only=True), mode="r", use_consolidated=False)
    found: Any = group.attrs.asdict().get("layerlore", {})  # Any: JSON
    parameters = found.get("identity", {}).get("parameters", {})
    for name, here in spec.parameters.items():
        there = parameters.get(name)
        if there != here:
            if name == "layers":
                there, here = (", ".join(entry["name"] for entry in side or ()) for side in (there, here))
            return f"other settings: {name} {there} there, {here} here; record elsewhere or as it was begun"
    return "another version of the format; record elsewhere"
