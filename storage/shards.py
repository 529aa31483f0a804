"""Small shards of finished stages on S3: each is read whole, and once in a run.

Zarr asks for the index of a shard and then for its chunks, each time that rows are read: a hundred coresets of one
layer would ask for the same few kilobytes of maps a hundred times.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import zarr
from zarr.core.buffer.cpu import Buffer
from zarr.storage import MemoryStore, StorePath

from storage.layouts import ArrayLayout, ZarrArray
from storage.stores import Store

SMALL = 8 * 2**20  # bytes of a shard before compression, at most
TOGETHER = 16 * 2**20  # bytes of all shards of one reading, at most
KEPT = 64 * 2**20  # bytes that a process remembers, at most


@dataclass
class Shards:
    """The shards that this process remembers, by run and path; those that were not used for longest go first."""

    kept: int = KEPT
    size: int = 0
    found: "OrderedDict[tuple[str, str], bytes]" = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, store: Store, paths: Sequence[str]) -> dict[str, bytes]:
        """Return the objects at `paths` that are there; those that are not remembered are read at once."""
        with self.lock:
            known = {path: self.found[store.memory, path] for path in paths if (store.memory, path) in self.found}
            for path in known:
                self.found.move_to_end((store.memory, path))
        for path, raw in store.read_all([path for path in paths if path not in known]).items():
            if isinstance(raw, bytes):
                known[path] = raw
                self._keep((store.memory, path), raw)
            elif not isinstance(raw, FileNotFoundError):
                raise raw
        return known

    def holds(self, store: Store, path: str) -> bool:
        """Say whether a shard is remembered that is not empty."""
        return bool(self.found.get((store.memory, path)))

    def forget(self, store: Store, paths: Sequence[str]) -> None:
        """Forget shards, which may have been damaged on the way."""
        with self.lock:
            for path in paths:
                self.size -= len(self.found.pop((store.memory, path), b""))

    def _keep(self, key: tuple[str, str], raw: bytes) -> None:
        """Remember a shard."""
        with self.lock:
            self.size += len(raw) - len(self.found.pop(key, b""))
            self.found[key] = raw
            while self.size > self.kept:
                self.size -= len(self.found.popitem(last=False)[1])


SHARDS = Shards()


def are_small(store: Store, layout: ArrayLayout, partitions: range) -> bool:
    """Say whether the shards of some partitions of a finished stage's array are read whole and remembered."""
    if store.local or not store.memory or not layout.shape[0]:
        return False
    shard = layout.bytes // layout.shape[0] * layout.rows
    return shard <= SMALL and shard * len(partitions) <= TOGETHER


def array_of(shards: dict[str, bytes], metadata: bytes) -> ZarrArray:
    """Return an array in memory of which some shards are there, by their keys."""
    values = {key: Buffer.from_bytes(raw) for key, raw in shards.items()}
    found: ZarrArray = zarr.Array.from_dict(StorePath(MemoryStore(dict(values), read_only=True)), json.loads(metadata))
    return found
