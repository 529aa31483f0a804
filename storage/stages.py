"""A stage in a store: its arrays and files, the markers of its partitions, and whether it is complete.

<store>/<stage>/<key>/data.zarr                     arrays; the attributes hold identity and layout
<store>/<stage>/<key>/files/<name>                  tables, checkpoints
<store>/<stage>/<key>/markers/<partition>.json      written after the partition's data
<store>/<stage>/<key>/markers/complete.json         written last; from then on the stage is read-only
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import zarr
import zarr.errors
from numpy.typing import NDArray

from storage.documents import DamagedError, Document, Json, canonical, decode, digest, encode
from storage.layouts import Layout, array_digest, create_array
from storage.specs import StageSpec
from storage.stores import PARTIAL, Store, StoreError

Block = NDArray[np.generic]


@dataclass(frozen=True)
class Stage:
    """A stage that is being written. Picklable: a worker writes its partition through it."""

    store: Store
    spec: StageSpec
    layout: Layout

    def missing(self) -> list[int]:
        """Return the partitions without a valid marker, in order."""
        present = set(self.store.names(f"{self.spec.path}/markers"))
        return [p for p in range(self.layout.partitions) if marker_name(p) not in present or self.marker(p) is None]

    def marker(self, partition: int) -> Document | None:
        """Return a partition's marker, or None where it is absent or damaged (it is then written again)."""
        try:
            return read_marker(self.store, self.spec.path, partition)
        except (FileNotFoundError, DamagedError):
            return None

    @contextmanager
    def partition(self, number: int) -> Iterator["Partition"]:
        """Write one partition: its marker follows when the block ends without an exception.

        Raises
        ------
        StoreError : the stage is finished
        """
        if self.store.exists(f"{self.spec.path}/markers/complete.json"):
            raise StoreError(f"{self.spec.title}: finished stages are read-only, nothing was written")
        writing = Partition(self, number)
        started, cpu = time.perf_counter(), time.process_time()
        yield writing
        writing.numbers.setdefault("seconds", time.perf_counter() - started)
        writing.numbers.setdefault("cpu_seconds", time.process_time() - cpu)
        marker = {"partition": number, "arrays": writing.arrays, "files": writing.files, "numbers": writing.numbers}
        self.store.write(f"{self.spec.path}/markers/{marker_name(number)}", encode(marker))

    def seal(self, summary: Mapping[str, Json] | None = None) -> "FinishedStage":
        """Declare the stage complete.

        Raises
        ------
        StoreError : a partition is missing
        """
        if missing := self.missing():
            raise StoreError(f"{self.spec.title}: {len(missing)} partitions are missing, the first is {missing[0]}")
        markers = [read_marker(self.store, self.spec.path, p) for p in range(self.layout.partitions)]
        note: Document = {
            "identity": self.spec.identity,
            "layout": self.layout.document(),
            "arrays": {n: digest(canonical([m["arrays"].get(n) for m in markers])) for n in self.layout.arrays},
            "metadata": {n: digest(self.store.read(metadata_path(self.spec.path, n))) for n in self.layout.arrays},
            "files": {name: stated for m in markers for name, stated in m["files"].items()},
            "summary": dict(summary or {}),
        }
        self.store.write(f"{self.spec.path}/markers/complete.json", encode(note))
        return FinishedStage(self.store, self.spec.path, note)


@dataclass
class Partition:
    """What a worker writes in one partition; `numbers` go into its marker."""

    stage: Stage
    number: int
    arrays: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    numbers: Document = field(default_factory=dict)

    @property
    def span(self) -> tuple[int, int]:
        """The rows of the first array that this partition holds."""
        return next(iter(self.stage.layout.arrays.values())).span(self.number)

    def write(self, name: str, block: Block) -> None:
        """Write this partition's rows of array `name`: a whole shard, by its only writer.

        Raises
        ------
        ValueError : shape or dtype differ from the layout
        """
        layout = self.stage.layout.arrays[name]
        start, stop = layout.span(self.number)
        expected = (stop - start, *layout.shape[1:])
        if block.shape != expected or block.dtype != np.dtype(layout.dtype):
            raise ValueError(
                f"{self.stage.spec.title}, array {name!r}, partition {self.number}: "
                f"got {block.dtype} {block.shape}, the layout has {layout.dtype} {expected}"
            )
        if block.size:
            path = f"{self.stage.spec.path}/data.zarr"
            array = open_array(self.stage.store, path, name, read_only=False)
            array[start:stop] = block
        self.arrays[name] = array_digest(block)

    def write_file(self, name: str, data: bytes) -> None:
        """Write `files/<name>` whole."""
        self.stage.store.write(f"{self.stage.spec.path}/files/{name}", data)
        self.files[name] = digest(data)


@dataclass(frozen=True)
class FinishedStage:
    """A complete stage, read-only. Every read is checked: damage raises and names what is damaged."""

    store: Store
    path: str
    note: Document

    @cached_property
    def layout(self) -> Layout:
        """The arrays and partitions."""
        return Layout.of(self.note["layout"])

    @property
    def summary(self) -> Document:
        """What the stage stated when it was sealed."""
        found: Document = self.note["summary"]
        return found

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Block:
        """Return rows `start:stop` of array `name`.

        Raises
        ------
        DamagedError : a chunk fails its checksum or its file is gone; names array, partition and key
        """
        layout = self.layout.arrays[name]
        stop = layout.shape[0] if stop is None else stop
        for partition in range(start // layout.rows, -(-stop // layout.rows) if stop > start else 0):
            if not self.store.exists(self.shard_path(name, partition)):
                raise DamagedError(self.damage(name, partition, "its file is missing"))
        array = self._array(name)
        try:
            block = array[start:stop]
        except (ValueError, RuntimeError, OSError, zarr.errors.BaseZarrError) as error:
            raise DamagedError(self._find_damage(name, start, stop, error)) from error
        return np.asarray(block)

    def read_file(self, name: str) -> bytes:
        """Return `files/<name>`; DamagedError if it is not what was written."""
        path = f"{self.path}/files/{name}"
        try:
            data = self.store.read(path)
        except FileNotFoundError:
            raise DamagedError(f"{path}: missing, though its stage is complete") from None
        if digest(data) != self.note["files"].get(name):
            raise DamagedError(f"{path}: its digest does not match what was written")
        return data

    def shard_path(self, name: str, partition: int) -> str:
        """Return where the shard of `partition` lies, relative to the store."""
        tail = "/0" * (len(self.layout.arrays[name].shape) - 1)
        return f"{self.path}/data.zarr/{name}/c/{partition}{tail}"

    def damage(self, name: str, partition: int, what: str) -> str:
        """Name a damaged partition of an array."""
        return f"{self.path}: array {name!r}, partition {partition}, key {self.shard_path(name, partition)}: {what}"

    def _array(self, name: str) -> "zarr.Array[zarr.core.metadata.ArrayV3Metadata]":
        """Open an array after checking its metadata's digest."""
        path = metadata_path(self.path, name)
        try:
            intact = digest(self.store.read(path)) == self.note["metadata"][name]
        except FileNotFoundError:
            intact = False
        if not intact:
            raise DamagedError(f"{self.path}: array {name!r}: its metadata {path} is damaged or missing")
        return open_array(self.store, f"{self.path}/data.zarr", name, read_only=True)

    def _find_damage(self, name: str, start: int, stop: int, error: Exception) -> str:
        """Name the first partition in `start:stop` that cannot be read."""
        layout, array = self.layout.arrays[name], self._array(name)
        for partition in range(start // layout.rows, -(-stop // layout.rows)):
            low, high = layout.span(partition)
            try:
                array[low:high]
            except (ValueError, RuntimeError, OSError, zarr.errors.BaseZarrError):
                return self.damage(name, partition, "fails its checksum")
        return f"{self.path}: array {name!r}: {error}"


def begin_stage(store: Store, spec: StageSpec, layout: Layout) -> Stage:
    """Create a stage's arrays where they are absent, or go on with what an earlier run left.

    Unfinished files of a killed run are swept. The caller holds the stage's claim.

    Raises
    ------
    StoreError : what is there has another identity or layout
    """
    if store.local:
        sweep(store, spec.path)
    expected = {"identity": spec.identity, "layout": layout.document()}
    group = zarr.open_group(store.zarr(f"{spec.path}/data.zarr"), mode="a", use_consolidated=False)
    found: Document | None = group.attrs.asdict().get("layerlore")  # type: ignore[assignment]  # our own JSON
    if found is None:
        group.attrs["layerlore"] = expected
    elif canonical(found) != canonical(expected):
        part = next(k for k in expected if canonical(found.get(k)) != canonical(expected[k]))
        place = store.path(spec.path)
        raise StoreError(f"{spec.title}: the store holds it with another {part}; remove {place} and run again")
    for name, array in layout.arrays.items():
        if name not in group:
            create_array(group, name, array)
    return Stage(store, spec, layout)


def sweep(store: Store, path: str) -> None:
    """Remove what writers that died left unfinished below `path` (a local store; S3 shows whole objects only)."""
    for name in store.files(path):
        if name.endswith(PARTIAL):
            store.remove(f"{path}/{name}")


def find_finished(store: Store, path: str) -> FinishedStage | None:
    """Return the finished stage at `path`, or None where it is absent or incomplete.

    Raises
    ------
    DamagedError : its completion note is damaged
    """
    try:
        raw = store.read(f"{path}/markers/complete.json")
    except (FileNotFoundError, NotADirectoryError):
        return None
    return FinishedStage(store, path, decode(raw, f"{path}/markers/complete.json"))


def open_finished(store: Store, spec: StageSpec) -> FinishedStage:
    """Return the finished stage of `spec`.

    Raises
    ------
    StoreError : it is not complete, or what is stored has another identity
    """
    found = find_finished(store, spec.path)
    if found is None:
        raise StoreError(f"{spec.title}: not complete; `layerlore run` the config that makes it first")
    if canonical(found.note["identity"]) != canonical(spec.identity):
        raise StoreError(f"{spec.title}: the store holds another stage under this key; run `layerlore verify`")
    return found


def read_marker(store: Store, path: str, partition: int) -> Document:
    """Return the marker of a partition of the stage at `path`."""
    name = f"{path}/markers/{marker_name(partition)}"
    return decode(store.read(name), name)


def metadata_path(path: str, name: str) -> str:
    """Return where the metadata of array `name` of the stage at `path` lies."""
    return f"{path}/data.zarr/{name}/zarr.json"


def marker_name(partition: int) -> str:
    """Return the file name of a partition's marker."""
    return f"{partition:06d}.json"


def open_array(
    store: Store, path: str, name: str, *, read_only: bool
) -> "zarr.Array[zarr.core.metadata.ArrayV3Metadata]":
    """Open array `name` of the group at `path`."""
    found = zarr.open_array(store.zarr(f"{path}/{name}", read_only=read_only), mode="r" if read_only else "r+")
    return found
