"""A parameter's records in a segment: chunk files of whole records of any length, each with a checksum.

A record is what one row of a hybrid archive keeps of a parameter. The table of `storage.updates.tables` says where
each record lies. A chunk file holds records in succession, then their CRC-32C.
"""

import time
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass

import numpy as np

from storage.checksums import CHECKSUM, Bytes, Write, with_checksum, without_checksum
from storage.direct import aligned_zeros
from storage.documents import DamagedError
from storage.stores import Store
from storage.updates.chunks import BUFFERS, LEAST, USUAL, read_file

RECORDS = "records"  # folder of a segment
ALIGNMENT = 16  # bytes
BUFFERED = 2  # buffers of a writer with a pool: one is filled while one is written


@dataclass(frozen=True)
class Place:
    """The chunk file of a record, and its bytes in there."""

    chunk: int
    offset: int
    size: int


def chunk_bytes(sizes: Sequence[int], steps: int) -> list[int]:
    """Return the bytes of a chunk of each parameter.

    Parameters
    ----------
    sizes : bytes of a usual record of each parameter
    steps : largest number of records
    """
    target = min(USUAL, max(LEAST, BUFFERS // (BUFFERED * max(1, len(sizes)))))
    return [max(aligned(size), min(target, steps * aligned(size))) for size in sizes]


def aligned(size: int) -> int:
    """Return the bytes that a record takes in a chunk."""
    return -(-size // ALIGNMENT) * ALIGNMENT


class RecordWriter:
    """Writes records below `path`. Holds one chunk, with a pool two, or a longer record.

    Parameters
    ----------
    capacity : bytes of a chunk
    pool : writes full chunks in another thread; None writes at once
    """

    def __init__(self, path: str, capacity: int, write: Write, pool: Executor | None = None) -> None:
        self.waited_seconds = 0.0
        self._path, self._capacity, self._write, self._pool = path, capacity, write, pool
        count = 1 if pool is None else BUFFERED
        self._buffers: list[Bytes] = [aligned_zeros(capacity + CHECKSUM) for _ in range(count)]
        self._busy: list[Future[None] | None] = [None] * count
        self._chunk, self._filled = 0, 0

    def room(self, size: int) -> tuple[Bytes, Place]:
        """Return memory (size,) for the next record, to fill before the next call, and its place."""
        whole = aligned(size)
        if self._filled and self._filled + whole > self._capacity:
            self._flush()
        if not self._filled:
            self._free(whole)
        place = Place(self._chunk, self._filled, size)
        self._buffer[place.offset + size : place.offset + whole] = 0
        self._filled += whole
        return self._buffer[place.offset : place.offset + size], place

    def close(self) -> None:
        """Write the last chunk, and wait until all are written."""
        if self._filled:
            self._flush()
        started = time.perf_counter()
        for future in self._busy:
            if future is not None:
                future.result()
        self.waited_seconds += time.perf_counter() - started
        self._buffers = []

    @property
    def _buffer(self) -> Bytes:
        """Return the buffer of the present chunk."""
        return self._buffers[self._chunk % len(self._buffers)]

    def _free(self, size: int) -> None:
        """Wait until the buffer of the present chunk is written, and let it hold `size` bytes."""
        slot = self._chunk % len(self._buffers)
        if (future := self._busy[slot]) is not None:
            started = time.perf_counter()
            future.result()
            self.waited_seconds += time.perf_counter() - started
            self._busy[slot] = None
        if size > self._buffer.size - CHECKSUM:
            self._buffers[slot] = aligned_zeros(size + CHECKSUM)

    def _flush(self) -> None:
        """Write the present chunk, or let the pool do so."""
        buffer, name, filled = self._buffer, f"{self._path}/{self._chunk}", self._filled
        if self._pool is None:
            self._put(name, buffer, filled)
        else:
            slot = self._chunk % len(self._buffers)
            self._busy[slot] = self._pool.submit(self._put, name, buffer, filled)
        self._chunk, self._filled = self._chunk + 1, 0

    def _put(self, name: str, buffer: Bytes, filled: int) -> None:
        """Write a chunk file."""
        self._write(name, with_checksum(buffer, filled), checked=True)


class RecordReader:
    """Reads the records of a parameter, whose chunk files lie below `path`. Holds one chunk."""

    def __init__(self, store: Store, path: str) -> None:
        self._store, self._path = store, path
        self._chunk, self._data = -1, np.empty(0, np.uint8)

    def read(self, place: Place) -> Bytes:
        """Return the bytes of a record, a view that is not writable.

        Raises
        ------
        DamagedError : the file is missing, too short or fails its checksum; names the file
        """
        if place.chunk != self._chunk:
            file = f"{self._path}/{place.chunk}"
            self._data, self._chunk = without_checksum(read_file(self._store, file), file), place.chunk
        if place.offset + place.size > self._data.size:
            raise DamagedError(
                f"{self._path}/{place.chunk}: expected at least {place.offset + place.size} bytes, "
                f"found {self._data.size}"
            )
        return self._data[place.offset : place.offset + place.size]
