"""The files of the layers with factors in a segment, which another thread writes."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod

import torch
from torch import Tensor

from storage.checksums import Write
from storage.updates.records import RECORDS, Place, RecordWriter
from tasks.recording.taps import moved

Pieces = tuple[Sequence[Tensor], tuple[int, ...]]  # pieces along the first axis, and the shape of all together


class FactorFiles:
    """Takes records in the training's thread. Holds two chunks per layer.

    Parameters
    ----------
    folder : of the segment
    write : called from the other thread; no more once the recording is abandoned
    """

    def __init__(self, folder: str, write: Write) -> None:
        self._folder, self._given, self._stopped = folder, write, False
        self._pool = ThreadPoolExecutor(1, "layerlore-factors")
        self._files: dict[str, RecordWriter] = {}

    @property
    def waited_seconds(self) -> float:
        """Return the time that the training waited for the other thread."""
        return sum(file.waited_seconds for file in self._files.values())

    def open(self, name: str, capacity: int) -> None:
        """Begin the records of a parameter, in chunks of `capacity` bytes."""
        self._files[name] = RecordWriter(f"{self._folder}/{RECORDS}/{name}", capacity, self._write, self._pool)

    def put(self, name: str, dtype: torch.dtype, parts: Sequence[Pieces]) -> Place:
        """Copy tensors of one dtype, from any device, into one record."""
        sizes = [prod(shape) for _, shape in parts]
        room, place = self._files[name].room(sum(sizes) * dtype.itemsize)
        values, start = torch.from_numpy(room).view(dtype), 0
        for (pieces, shape), size in zip(parts, sizes, strict=True):
            moved(pieces, values[start : start + size].view(shape))
            start += size
        return place

    def put_bytes(self, name: str, size: int, fill: Callable[[Tensor], object]) -> Place:
        """Add a record that `fill` writes into memory (size,) uint8."""
        room, place = self._files[name].room(size)
        fill(torch.from_numpy(room))
        return place

    def close(self) -> None:
        """Write what is left."""
        for file in self._files.values():
            file.close()
        self._pool.shutdown()

    def abandon(self) -> None:
        """Let the other thread end; chunks that are not begun are not written."""
        self._stopped = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def join(self) -> None:
        """Wait until the other thread ends."""
        self._pool.shutdown()

    def _write(self, name: str, data: bytes | memoryview, *, checked: bool = False) -> None:
        """Write a file, unless the recording is abandoned."""
        if not self._stopped:
            self._given(name, data, checked=checked)
