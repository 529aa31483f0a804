"""A stage in a store: its arrays and files, its partition records and its completion record.

<store>/<stage>/<key>/data.zarr                     arrays; the attributes hold identity and layout
<store>/<stage>/<key>/files/<name>                  tables, checkpoints
<store>/<stage>/<key>/markers/<partition>.json      written after the partition's data
<store>/<stage>/<key>/markers/complete.json         written last; from then on the stage is read-only
<store>/<stage>/<key>/markers/partitions-<n>.json   many partition records again, for readers of the complete stage
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from storage.documents import DamagedError, Document, Json, canonical, digest, encode
from storage.finished import FinishedStage as FinishedStage
from storage.finished import find_finished as find_finished
from storage.finished import find_many as find_many
from storage.finished import markers_of as markers_of
from storage.finished import open_finished as open_finished
from storage.layouts import Layout, array_metadata, group_attributes, group_metadata, metadata_path
from storage.memory import remember
from storage.notes import GROUP, marker_path, note_path, read_markers
from storage.notes import marker_name as marker_name
from storage.notes import read_marker as read_marker
from storage.packs import KEY, RECORDS, may_pack, pack_records
from storage.partitions import OvertakenError, Partition
from storage.specs import StageSpec
from storage.stores import Store, StoreError
from storage.together import at_once


@dataclass(frozen=True)
class Stage:
    """A stage that is being written. Picklable: a worker writes its partition through it.

    Attributes
    ----------
    seen : the valid partition records at one moment, by partition (`looked`); None to read the store each time
    new : whether nothing of the stage was there when it was begun
    """

    store: Store
    spec: StageSpec
    layout: Layout
    seen: Mapping[int, Document] | None = field(default=None, compare=False, repr=False)
    new: bool = field(default=False, compare=False, repr=False)

    def looked(self, before: Mapping[int, Document] | None = None) -> "Stage":
        """Return the stage with its present partition records, so that later questions about them need no request.

        Parameters
        ----------
        before : partition records that were read already, by partition; a record does not change
        """
        present = set(self.store.names(f"{self.spec.path}/markers"))
        layout, before = self.layout.closed(present), before or {}
        there = [p for p in range(layout.partitions) if marker_name(p) in present]
        read = read_markers(self.store, [(self.spec.path, p) for p in there if p not in before])
        seen = {p: before.get(p) or read[self.spec.path, p] for p in there}
        return replace(self, layout=layout, seen={p: m for p, m in seen.items() if not isinstance(m, Exception)})

    def missing(self) -> list[int]:
        """Return the indices of the partitions without a valid record, in order."""
        stage = self if self.seen is not None else self.looked()
        assert stage.seen is not None
        return [p for p in range(stage.layout.partitions) if p not in stage.seen]

    def marker(self, partition: int) -> Document | None:
        """Return a partition's record, or None where it is absent or damaged (the partition is then made again)."""
        if self.seen is not None:
            return self.seen.get(partition)
        try:
            return read_marker(self.store, self.spec.path, partition)
        except (FileNotFoundError, DamagedError):
            return None

    @contextmanager
    def partition(self, number: int) -> Iterator[Partition]:
        """Write one partition; its record follows when the block ends without an exception.

        Raises
        ------
        OvertakenError : the stage is finished, or another run wrote the partition during the block
        """
        if self.store.exists(note_path(self.spec.path)):
            raise OvertakenError(f"{self.spec.title}: expected an unfinished stage, found a finished one, read-only")
        writing = Partition(self, number)
        started, cpu = time.perf_counter(), time.process_time()
        yield writing
        lacking = [n for n, a in self.layout.arrays.items() if number < a.partitions and n not in writing.arrays]
        assert not lacking, (self.spec.title, number, lacking)
        writing.numbers.setdefault("seconds", time.perf_counter() - started)
        writing.numbers.setdefault("cpu_seconds", time.process_time() - cpu)
        marker = {"partition": number, "arrays": writing.arrays, "files": writing.files, "numbers": writing.numbers}
        if writing.removed:
            marker["removed"] = writing.removed
        writing.look()
        self.store.write(marker_path(self.spec.path, number), encode(marker))
        for name in writing.removed:
            self.store.remove(f"{self.spec.path}/files/{name}")

    def seal(self, summary: Mapping[str, Json] | None = None) -> "FinishedStage":
        """Write the completion record; an open-ended stage has the partitions that are there.

        Raises
        ------
        StoreError : a partition is missing
        """
        return seal_all([self], lambda _: summary or {})[0]

    def _note(self, summary: Mapping[str, Json], metadata: Mapping[str, bytes | Exception]) -> Document:
        """Return the completion record of a stage whose partition records were read.

        Parameters
        ----------
        metadata : the stored metadata, or errors in their place, by path
        """
        assert self.seen is not None
        if missing := self.missing():
            raise StoreError(
                f"{self.spec.title}: expected all partitions, found {len(missing)} missing, the first is {missing[0]}"
            )
        markers = [self.seen[p] for p in range(self.layout.partitions)]
        return {
            "identity": self.spec.identity,
            "layout": self.layout.document(),
            "arrays": {n: markers_digest(markers, n) for n in self.layout.arrays},
            "metadata": {n: digest(_bytes(metadata[path])) for n, path in self.metadata.items()},
            "files": files_of(markers),
            "summary": dict(summary),
            **({KEY: RECORDS} if may_pack(self.layout) else {}),
        }

    @property
    def metadata(self) -> dict[str, str]:
        """The paths of the metadata of the group and of each array, by name."""
        return {name: metadata_path(self.spec.path, name) for name in (GROUP, *self.layout.arrays)}


def seal_all(stages: Sequence[Stage], summary: Callable[[Stage], Mapping[str, Json]]) -> "list[FinishedStage]":
    """Write the completion records of stages of one store, as many at once as the store takes.

    All other objects of the stages are there. Where a stage cannot be sealed, the others are.

    Raises
    ------
    StoreError : a partition is missing
    """
    finished, failure = list[FinishedStage](), None
    for some in at_once(stages[0].store, stages) if stages else ():
        store, notes = some[0].store, dict[str, Document]()
        packs = dict[str, bytes]()
        metadata = store.read_all([path for stage in some for path in stage.metadata.values()])
        for stage in some:
            try:
                whole = stage if stage.seen is not None else stage.looked()
                note = whole._note(summary(stage), metadata)
                packs |= pack_records(stage.spec.path, whole.layout, whole.seen or {})
                notes[stage.spec.path] = note
            except Exception as error:
                failure = failure or error
        raw = {path: encode(note) for path, note in notes.items()}
        if packs:
            store.write_all(packs)
        store.write_all({note_path(path): raw[path] for path in notes})
        for path, note in notes.items():
            remember(store, path, raw[path])
            finished.append(FinishedStage(store, path, note))
    if failure is not None:
        raise failure
    return finished


def begin_stage(store: Store, spec: StageSpec, layout: Layout) -> Stage:
    """Create the arrays of a stage where they are absent, or resume the stage of an earlier run.

    Unfinished files of a killed run are removed. The caller holds the stage's claim.

    Raises
    ------
    StoreError : the stored stage has another identity or layout, or its metadata are damaged
    """
    store.sweep(spec.path)
    stated = {"identity": spec.identity, "layout": layout.document()}
    group = metadata_path(spec.path, GROUP)
    metadata = {metadata_path(spec.path, name): array_metadata(array) for name, array in layout.arrays.items()}
    there = store.read_all([group, *metadata])
    found = _stated(store, spec.path, there.pop(group))
    if found is None:
        metadata = {group: group_metadata({"layerlore": stated}), **metadata}
    elif canonical(found) != canonical(stated):
        part = next(k for k in stated if canonical(found.get(k)) != canonical(stated[k]))
        raise StoreError(
            f"{spec.title}: expected the same {part} in the store, found another; "
            f"remove {store.path(spec.path)} and run again"
        )
    store.write_all({path: expected for path, expected in metadata.items() if there.get(path) != expected})
    return Stage(store, spec, layout, new=found is None)


def begun_layout(store: Store, spec: StageSpec) -> Layout | None:
    """Return the layout of a stage that an earlier run began; None where none did."""
    group = metadata_path(spec.path, GROUP)
    stated = _stated(store, spec.path, store.read_all([group])[group])
    return None if stated is None else Layout.of(stated["layout"])


def _stated(store: Store, path: str, group: bytes | Exception) -> Document | None:
    """Return what the metadata of a stage's group state; None where there are none yet, or none of ours."""
    if isinstance(group, FileNotFoundError | NotADirectoryError):
        return None
    try:
        found: Document | None = group_attributes(_bytes(group)).get("layerlore")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreError(
            f"{metadata_path(path, GROUP)}: expected a stage's metadata, found damage; "
            f"remove {store.path(path)} and run again"
        ) from error
    return found


def files_of(markers: Sequence[Document]) -> dict[str, str]:
    """Return the digests by name of the files that the partition records name and that no record removed."""
    removed = {name for marker in markers for name in marker.get("removed", ())}
    return {name: stated for m in markers for name, stated in m["files"].items() if name not in removed}


def markers_digest(markers: Iterable[Document], name: str) -> str:
    """Return the digest of all that the partition records of a stage hold for array `name`."""
    return digest(canonical([marker["arrays"].get(name) for marker in markers]))


def _bytes(found: bytes | Exception) -> bytes:
    """Return the bytes that were read; raise the error of reading them."""
    if isinstance(found, Exception):
        raise found
    return found
