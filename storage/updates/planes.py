"""Numbers of 16 bits as a record keeps them: first all low bytes, then all high bytes, compressed.

Small integers have high bytes of zero, and halves of one size have few different ones, so each plane compresses alone.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from storage.checksums import Bytes
from storage.documents import DamagedError

LEVEL = 1  # of zstd; higher ones take several times as long for a percent

Halves = NDArray[np.uint16]


def pack_planes(values: Halves) -> Bytes:
    """Return the bytes of numbers (n,)."""
    planes = np.ascontiguousarray(values.view(np.uint8).reshape(-1, 2).T)
    data: Bytes = np.frombuffer(_codec().compress(planes, asbytes=True), np.uint8).copy()  # torch asks for writable
    return data


def unpack_planes(data: Bytes, count: int) -> Halves:
    """Return the `count` numbers that `pack_planes` stored.

    Raises
    ------
    DamagedError : other bytes
    """
    try:
        raw = _codec().decompress(data.tobytes(), decompressed_size=2 * count, asbytes=True)
    except (OSError, ValueError) as error:
        raise DamagedError(f"a record: expected {count} compressed numbers, found other bytes: {error}") from error
    planes = np.frombuffer(raw, np.uint8).reshape(2, count)
    found: Halves = np.ascontiguousarray(planes.T).view(np.uint16).reshape(count)
    return found


def folded(values: NDArray[np.int16]) -> Halves:
    """Return integers as 0, -1, 1, -2, ... in order, so that small ones have a high byte of zero."""
    found: Halves = ((values << 1) ^ (values >> 15)).view(np.uint16)
    return found


def unfolded(values: Halves) -> NDArray[np.int16]:
    """Return the integers of `folded`."""
    found: NDArray[np.int16] = ((values >> 1) ^ (0 - (values & 1))).astype(np.uint16).view(np.int16)
    return found


def _codec() -> pa.Codec:
    """Return the coder."""
    return pa.Codec("zstd", compression_level=LEVEL)
