"""A stage in a store: its arrays and files, its partition records and its completion record.

<store>/<stage>/<key>/data.zarr                     arrays; the attributes hold identity and layout
<store>/<stage>/<key>/files/<name>                  tables, checkpoints
<store>/<stage>/<key>/markers/<partition>.json      written after the partition's data
<store>/<stage>/<key>/markers/complete.json         written last; from then on the stage is read-only
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import zarr
import zarr.errors

from storage.documents import DamagedError, Document, Json, canonical, digest, encode
from storage.layouts import Layout, ZarrArray, array_metadata, metadata_path, open_array
from storage.notes import GROUP, read_marker_document, read_note
from storage.partitions import Block, OvertakenError, Partition
from storage.specs import StageSpec
from storage.stores import Store, StoreError

ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)  # a folder of the same name is not a file
DAMAGE = (ValueError, RuntimeError, zarr.errors.BaseZarrError)  # a bad chunk; a fault of disk or network is OSError


@dataclass(frozen=True)
class Stage:
    """A stage that is being written. Picklable: a worker writes its partition through it."""

    store: Store
    spec: StageSpec
    layout: Layout

    def missing(self) -> list[int]:
        """Return the indices of the partitions without a valid record, in order."""
        present = set(self.store.names(f"{self.spec.path}/markers"))
        numbers = range(self.layout.closed(present).partitions)
        return [p for p in numbers if marker_name(p) not in present or self.marker(p) is None]

    def marker(self, partition: int) -> Document | None:
        """Return a partition's record, or None where it is absent or damaged (the partition is then made again)."""
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
        if self.store.exists(f"{self.spec.path}/markers/complete.json"):
            raise OvertakenError(f"{self.spec.title}: expected an unfinished stage, found a finished one, read-only")
        writing = Partition(self, number)
        started, cpu = time.perf_counter(), time.process_time()
        yield writing
        lacking = [n for n, a in self.layout.arrays.items() if number < a.partitions and n not in writing.arrays]
        assert not lacking, (self.spec.title, number, lacking)
        writing.numbers.setdefault("seconds", time.perf_counter() - started)
        writing.numbers.setdefault("cpu_seconds", time.process_time() - cpu)
        marker = {"partition": number, "arrays": writing.arrays, "files": writing.files, "numbers": writing.numbers}
        writing.look()
        self.store.write(f"{self.spec.path}/markers/{marker_name(number)}", encode(marker))

    def seal(self, summary: Mapping[str, Json] | None = None) -> "FinishedStage":
        """Write the completion record; an open-ended stage has the partitions that are there.

        Raises
        ------
        StoreError : a partition is missing
        """
        if missing := self.missing():
            raise StoreError(
                f"{self.spec.title}: expected all partitions, found {len(missing)} missing, the first is {missing[0]}"
            )
        layout = self.layout.closed(self.store.names(f"{self.spec.path}/markers"))
        markers = [read_marker(self.store, self.spec.path, p) for p in range(layout.partitions)]
        names = [GROUP, *self.layout.arrays]
        note: Document = {
            "identity": self.spec.identity,
            "layout": layout.document(),
            "arrays": {n: markers_digest(markers, n) for n in self.layout.arrays},
            "metadata": {n: digest(self.store.read(metadata_path(self.spec.path, n))) for n in names},
            "files": {name: stated for m in markers for name, stated in m["files"].items()},
            "summary": dict(summary or {}),
        }
        self.store.write(f"{self.spec.path}/markers/complete.json", encode(note))
        return FinishedStage(self.store, self.spec.path, note)


@dataclass(frozen=True)
class FinishedStage:
    """A complete stage, read-only. Every read is checked: damage raises an error that names the damaged object."""

    store: Store
    path: str
    note: Document

    @cached_property
    def layout(self) -> Layout:
        """The arrays and partitions of the stage."""
        return Layout.of(self.note["layout"])

    @property
    def summary(self) -> Document:
        """The summary that the stage got when it was sealed."""
        found: Document = self.note["summary"]
        return found

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Block:
        """Return rows `start:stop` of array `name`.

        Raises
        ------
        DamagedError : a chunk fails its checksum or its file is missing; names array, partition and key
        """
        layout = self.layout.arrays[name]
        stop = layout.shape[0] if stop is None else stop
        array = self._array(name)
        try:
            block = np.asarray(array[start:stop])
        except DAMAGE as error:
            raise DamagedError(self._find_damage(name, start, stop, error)) from error
        # Zarr returns fill values for a missing file, and for an empty shard, without an error.
        for partition in range(start // layout.rows, -(-stop // layout.rows) if block.size else 0):
            if not self.store.size(self.shard_path(name, partition)):
                raise DamagedError(self.damage(name, partition, "its file is missing or empty"))
        return block

    def read_file(self, name: str) -> bytes:
        """Return the content of `files/<name>`; DamagedError if it is not what was written."""
        path = f"{self.path}/files/{name}"
        try:
            data = self.store.read(path)
        except ABSENT:
            raise DamagedError(f"{path}: expected a file of a complete stage, found none") from None
        if digest(data) != self.note["files"].get(name):
            raise DamagedError(f"{path}: expected the content that was written, found other content")
        return data

    def shard_path(self, name: str, partition: int) -> str:
        """Return the path of a partition's shard, relative to the store."""
        return f"{self.path}/data.zarr/{name}/{self.layout.arrays[name].key(partition)}"

    def damage(self, name: str, partition: int, what: str) -> str:
        """Return a line that names a damaged partition of an array."""
        return f"{self.path}: array {name!r}, partition {partition}, key {self.shard_path(name, partition)}: {what}"

    def check_metadata(self, name: str) -> None:
        """Raise DamagedError unless the metadata of array `name`, or of the group, are those of the sealed stage."""
        path = metadata_path(self.path, name)
        try:
            intact = digest(self.store.read(path)) == self.note["metadata"][name]
        except ABSENT:
            intact = False
        if not intact:
            raise DamagedError(
                f"{path}: the metadata of {f'array {name!r}' if name else 'the group'} is damaged or missing"
            )

    def _array(self, name: str) -> ZarrArray:
        """Open an array after checking its metadata's digest."""
        self.check_metadata(name)
        return open_array(self.store, self.path, name, read_only=True)

    def _find_damage(self, name: str, start: int, stop: int, error: Exception) -> str:
        """Return a line that names the first unreadable partition in `start:stop`."""
        layout, array = self.layout.arrays[name], self._array(name)
        for partition in range(start // layout.rows, -(-stop // layout.rows)):
            low, high = layout.span(partition)
            try:
                array[low:high]
            except DAMAGE:
                return self.damage(name, partition, "fails its checksum")
        return f"{self.path}: array {name!r}: {error}"


def begin_stage(store: Store, spec: StageSpec, layout: Layout) -> Stage:
    """Create the arrays of a stage where they are absent, or resume the stage of an earlier run.

    Unfinished files of a killed run are removed. The caller holds the stage's claim.

    Raises
    ------
    StoreError : the stored stage has another identity or layout, or its metadata are damaged
    """
    store.sweep(spec.path)
    expected, place = {"identity": spec.identity, "layout": layout.document()}, store.path(spec.path)
    try:
        group = zarr.open_group(store.zarr(f"{spec.path}/data.zarr"), mode="a", use_consolidated=False)
    except zarr.errors.ContainsGroupError:  # another run has made it since Zarr looked
        group = zarr.open_group(store.zarr(f"{spec.path}/data.zarr"), mode="r+", use_consolidated=False)
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError(
            f"{metadata_path(spec.path, GROUP)}: expected a stage's metadata, found damage; "
            f"remove {place} and run again"
        ) from error
    found: Document | None = group.attrs.asdict().get("layerlore")  # type: ignore[assignment]  # our own JSON
    if found is None:
        group.attrs["layerlore"] = expected
    elif canonical(found) != canonical(expected):
        part = next(k for k in expected if canonical(found.get(k)) != canonical(expected[k]))
        raise StoreError(
            f"{spec.title}: expected the same {part} in the store, found another; remove {place} and run again"
        )
    for name, array in layout.arrays.items():
        path, metadata = metadata_path(spec.path, name), array_metadata(array)
        if not store.exists(path) or store.read(path) != metadata:
            store.write(path, metadata)
    return Stage(store, spec, layout)


def find_finished(store: Store, path: str) -> FinishedStage | None:
    """Return the finished stage at `path`, or None where it is absent or incomplete.

    Raises
    ------
    DamagedError : its completion record is damaged
    """
    try:
        return FinishedStage(store, path, read_note(store, path))
    except (FileNotFoundError, NotADirectoryError):
        return None


def open_finished(store: Store, spec: StageSpec) -> FinishedStage:
    """Return the finished stage of `spec`.

    Raises
    ------
    StoreError : it is not complete, or the stored stage has another identity
    """
    found = find_finished(store, spec.path)
    if found is None:
        raise StoreError(
            f"{spec.title}: expected a complete stage, found none; `layerlore run` the config that makes it first"
        )
    if canonical(found.note["identity"]) != canonical(spec.identity):
        raise StoreError(f"{spec.title}: expected this stage, found another under its key; run `layerlore verify`")
    return found


def read_marker(store: Store, path: str, partition: int) -> Document:
    """Return the record of a partition of the stage at `path`."""
    name = f"{path}/markers/{marker_name(partition)}"
    return read_marker_document(store, name, partition)


def markers_digest(markers: Iterable[Document], name: str) -> str:
    """Return the digest of all that the partition records of a stage hold for array `name`."""
    return digest(canonical([marker["arrays"].get(name) for marker in markers]))


def marker_name(partition: int) -> str:
    """Return the file name of a partition's record."""
    return f"{partition:06d}.json"
