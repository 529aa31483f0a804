"""The archive in a stage: the segments that belong to it, and files that abandoned attempts left.

A stage that records has these metrics in each partition record, one for each segment:

    parent      checkpoint that the segment started from, "" for the first
    initial     the first segment only: checkpoint of the state before step 0
    checkpoint  checkpoint after the segment's last step; a later record may remove it (`dropped_checkpoints`)
    recording   what `tasks.recording.segment.SegmentRecorder.close` returns
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import zarr

from storage.documents import Document
from storage.specs import StageSpec
from storage.stages import FinishedStage, Stage, files_of, find_finished, find_many, marker_name
from storage.stores import Store, StoreError

STAGE = "updates"  # kind of a recorder's stage
CONVERTED = "materialised"  # kind of a stage that holds an archive as another kind
MOST_CHECKPOINTS = 256  # above, an archive of many checkpoints and nothing else keeps every second one


@dataclass(frozen=True)
class Segment:
    """Consecutive steps `start:stop` of a training, recorded together and readable alone.

    Parameters
    ----------
    number : index of the partition
    folder : folder of the segment, below the stage's files
    before, after : checkpoints of the states between which it lies
    kind : kind of the archive
    parts : the segments as they were recorded, of one whose checkpoints in between were removed
    """

    number: int
    start: int
    stop: int
    folder: str = ""
    before: str = ""
    after: str = ""
    kind: str = ""
    parts: "tuple[Segment, ...]" = ()

    @property
    def recorded(self) -> "tuple[Segment, ...]":
        """The segments as they were recorded."""
        return self.parts or (self,)


def archive_segments(stage: FinishedStage) -> list[Segment]:
    """Return the segments of a finished stage, in order.

    Raises
    ------
    StoreError : the stage recorded nothing
    DamagedError : a partition record is missing or damaged; names it
    """
    found: list[Segment] = []
    markers = stage.markers()
    for number, marker in enumerate(markers):
        numbers = marker["numbers"]
        recording = numbers.get("recording")
        if not recording:
            raise StoreError(f"{stage.path}: expected a recorded training, found no record; set `record` and run it")
        before = numbers["parent"] or numbers["initial"]
        span = int(recording["start"]), int(recording["stop"])
        found.append(Segment(number, *span, recording["folder"], before, numbers["checkpoint"], recording["kind"]))
    assert [s.start for s in found] == [0, *(s.stop for s in found[:-1])], stage.path
    if not any("removed" in marker for marker in markers):
        return found
    size = kept_every(len(found))
    groups = [tuple(found[first : first + size]) for first in range(0, len(found), size)]
    return [
        replace(group[0], number=number, stop=group[-1].stop, after=group[-1].after, parts=group)
        for number, group in enumerate(groups)
    ]


def kept_every(segments: int) -> int:
    """Return n where, after so many segments, the checkpoint after every n-th segment is kept."""
    every = 1
    while segments // every > MOST_CHECKPOINTS:
        every *= 2
    return every


def dropped_checkpoints(chain: Sequence[Document]) -> list[str]:
    """Return the checkpoints to remove once the segment after those of `chain`, partition records, is complete.

    The last two checkpoints stay, so that a training can go on if the record of the last one is damaged.
    """
    every = kept_every(len(chain) + 1)
    if every == 1:
        return []
    gone = {name for marker in chain for name in marker.get("removed", ())}
    due = [m["numbers"]["checkpoint"] for i, m in enumerate(chain[:-1]) if (i + 1) % every]
    return [name for name in due if name not in gone]


def kept_checkpoints(segments: int) -> int:
    """Return the number of checkpoints after segments that a thinned archive of so many segments keeps."""
    last = range(max(0, segments - 2), segments)
    return segments // kept_every(segments) + sum((i + 1) % kept_every(segments) != 0 for i in last)


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
    while kept and any("removed" in marker for marker in kept) and not _can_go_on(stage, kept):
        stage.store.remove(f"{folder}/{marker_name(len(kept) - 1)}")
        kept.pop()
    return kept


def _can_go_on(stage: Stage, chain: Sequence[Document]) -> bool:
    """Return whether the last checkpoint of a chain is there, or whether the stage needs none."""
    last = chain[-1]["numbers"]["checkpoint"]
    return stage.layout.partitions == len(chain) or stage.store.exists(f"{stage.spec.path}/files/{last}")


def sweep_files(stage: Stage, markers: list[Document]) -> None:
    """Remove every file of a stage without a partition record in `markers`: of abandoned attempts, or removed ones."""
    wanted = set(files_of(markers))
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


def find_conversions(store: Store) -> dict[str, list[FinishedStage]]:
    """Return the finished conversions of each archive, by the archive's path; those with every bit come first."""
    paths = [f"{CONVERTED}/{key}" for key in store.names(CONVERTED)]
    found: dict[str, list[FinishedStage]] = {}
    for stage in sorted(find_many(store, paths).values(), key=lambda one: (one.summary["kind"], one.path)):
        found.setdefault(stage.summary["archive"], []).append(stage)
    return found


def conversion_of(stage: FinishedStage) -> FinishedStage | None:
    """Return the best finished conversion of an archive, None without one."""
    return next(iter(find_conversions(stage.store).get(stage.path, [])), None)


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
