"""A finished stage: read-only, and every read is checked."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import zarr.errors

from storage.checksums import is_content
from storage.documents import DamagedError, Document, canonical, digest
from storage.layouts import Layout, ZarrArray, is_fill, metadata_path, open_array
from storage.memory import forget, recall, remember
from storage.notes import note_path, read_notes
from storage.packs import read_records, record_path
from storage.partitions import Block
from storage.shards import SHARDS, are_small, array_of
from storage.specs import StageSpec
from storage.stores import Store, StoreError

ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)  # a folder of the same name is not a file
DAMAGE = (ValueError, RuntimeError, zarr.errors.BaseZarrError)  # a bad chunk; a fault of disk or network is OSError


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
        array = self._holding(name, start, stop)
        try:
            block = np.asarray(array[start:stop])
        except DAMAGE as error:
            text = self._find_damage(name, start, stop, error)
            SHARDS.forget(self.store, [self.shard_path(name, partition) for partition in layout.between(start, stop)])
            raise DamagedError(text) from error
        # Zarr returns fill values for a missing file, and for an empty shard, without an error.
        for partition in layout.between(start, stop) if block.size else ():
            low, high = layout.span(partition)
            part = block[max(low - start, 0) : high - start]
            shard = self.shard_path(name, partition)
            if is_fill(layout, part) and not SHARDS.holds(self.store, shard) and not self.store.size(shard):
                raise self._lost(self.damage(name, partition, "its file is missing or empty"))
        return block

    def read_file(self, name: str) -> bytes:
        """Return the content of `files/<name>`; DamagedError if it is not what was written."""
        path = f"{self.path}/files/{name}"
        try:
            data = self.store.read(path)
        except ABSENT:
            raise self._lost(f"{path}: expected a file of a complete stage, found none") from None
        if not is_content(data, self.note["files"].get(name)):
            raise DamagedError(f"{path}: expected the content that was written, found other content")
        return data

    def shard_path(self, name: str, partition: int) -> str:
        """Return the path of a partition's shard, relative to the store."""
        return f"{self.path}/data.zarr/{name}/{self.layout.arrays[name].key(partition)}"

    def damage(self, name: str, partition: int, what: str) -> str:
        """Return a line that names a damaged partition of an array."""
        return f"{self.path}: array {name!r}, partition {partition}, key {self.shard_path(name, partition)}: {what}"

    def markers(self) -> list[Document]:
        """Return the records of all partitions, in order; DamagedError if one is missing or damaged."""
        return markers_of([self])[0]

    def check_metadata(self, name: str) -> bytes:
        """Return the metadata of array `name`, or of the group; DamagedError unless they are as sealed."""
        if name in self._intact:
            return self._intact[name]
        path = metadata_path(self.path, name)
        known = recall(self.store, path)
        if known is not None and digest(known) == self.note["metadata"][name]:
            self._intact[name] = known
            return known
        text = f"{path}: the metadata of {f'array {name!r}' if name else 'the group'} is damaged or missing"
        try:
            found = self.store.read(path)
        except ABSENT:
            raise self._lost(text) from None
        if digest(found) != self.note["metadata"][name]:
            raise DamagedError(text)
        self._keep_metadata(name, found)
        return found

    def _keep_metadata(self, name: str, metadata: bytes) -> None:
        """Keep metadata that were found intact, for the other readers of this run too."""
        self._intact[name] = metadata
        remember(self.store, metadata_path(self.path, name), metadata)

    @cached_property
    def _intact(self) -> dict[str, bytes]:
        """The metadata that were read, by name: each is read once."""
        return {}

    def metadata_paths(self) -> dict[str, str]:
        """Return the paths of the metadata of the group and of each array, by name."""
        return {name: metadata_path(self.path, name) for name in self.note["metadata"]}

    def _holding(self, name: str, start: int, stop: int) -> ZarrArray:
        """Return an array that holds some rows: the stored one, or one in memory of the shards with these rows."""
        layout = self.layout.arrays[name]
        partitions = layout.between(start, stop)
        if not are_small(self.store, layout, partitions):
            return self._array(name)
        keys = {self.shard_path(name, partition): layout.key(partition) for partition in partitions}
        metadata, shards = self.check_metadata(name), SHARDS.read(self.store, [*keys])
        return array_of({keys[path]: raw for path, raw in shards.items()}, metadata)

    def _array(self, name: str) -> ZarrArray:
        """Open an array after checking its metadata's digest."""
        return open_array(self.store, self.path, name, self.check_metadata(name), read_only=True)

    def _lost(self, text: str) -> DamagedError:
        """Return the error for a missing object: `text`, unless the whole stage was removed meanwhile."""
        if self.store.exists(note_path(self.path)):
            return DamagedError(text)
        forget(self.store, self.path)
        return DamagedError(
            f"{self.path}: expected a complete stage, found it removed during the run; run its config again to make it"
        )

    def _find_damage(self, name: str, start: int, stop: int, error: Exception) -> str:
        """Return a line that names the first unreadable partition in `start:stop`."""
        layout = self.layout.arrays[name]
        for partition in layout.between(start, stop):
            low, high = layout.span(partition)
            try:
                self._holding(name, low, high)[low:high]
            except DAMAGE:
                return self.damage(name, partition, "fails its checksum")
        return f"{self.path}: array {name!r}: {error}"


def find_many(store: Store, paths: Iterable[str]) -> dict[str, FinishedStage]:
    """Return the complete stages among those at `paths`, by path; their completion records are read at once.

    Raises
    ------
    DamagedError : a completion record is damaged
    """
    return {path: FinishedStage(store, path, note) for path, note in read_notes(store, paths).items()}


def preload_metadata(stages: Sequence[FinishedStage]) -> None:
    """Read the metadata of stages of one store at once; damaged ones are found when they are asked for."""
    read = stages[0].store.read_all([path for stage in stages for path in stage.metadata_paths().values()])
    for stage in stages:
        for name, path in stage.metadata_paths().items():
            found = read[path]
            if isinstance(found, bytes) and digest(found) == stage.note["metadata"][name]:
                stage._keep_metadata(name, found)


def find_finished(store: Store, path: str) -> FinishedStage | None:
    """Return the finished stage at `path`, or None where it is absent or incomplete.

    Raises
    ------
    DamagedError : its completion record is damaged
    """
    return find_many(store, [path]).get(path)


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


def markers_of(stages: Sequence[FinishedStage]) -> list[list[Document]]:
    """Return the partition records of each stage, in order; the stages are of one store, and all are read at once.

    Raises
    ------
    DamagedError : one is missing or damaged
    """
    if not stages:
        return []
    read = read_records(stages[0].store, [(stage.path, stage.note) for stage in stages])
    found: dict[str, list[Document]] = {stage.path: [] for stage in stages}
    for stage in {stage.path: stage for stage in stages}.values():
        for number in range(stage.layout.partitions):
            marker = read[stage.path, number]
            if isinstance(marker, FileNotFoundError | NotADirectoryError):
                name = record_path(stage.path, stage.note, number)
                raise stage._lost(f"{name}: expected a partition record of a complete stage, found none")
            if isinstance(marker, Exception):
                raise marker
            found[stage.path].append(marker)
    return [found[stage.path] for stage in stages]
