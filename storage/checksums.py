"""The checksum of large files that are written while a training waits: CRC-32C, in a third of the time of SHA-256.

Such a file ends with the checksum of the rest. Partition records then state this checksum in place of a SHA-256.
"""

from typing import Protocol

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from storage.documents import DamagedError, digest

Bytes = NDArray[np.uint8]

CHECKSUM = 4  # bytes
MARK = "crc32c:"  # before the checksum in a partition record
PIECE = 2**22  # bytes


class Write(Protocol):
    """Writes a file."""

    def __call__(self, name: str, data: bytes | memoryview, /, *, checked: bool = False) -> None:
        """Write a file whole.

        Parameters
        ----------
        checked : whether the data come from `with_checksum`
        """
        ...


def crc32c(data: Bytes, before: int = 0) -> int:
    """Return the CRC-32C of contiguous bytes that follow others with the checksum `before`."""
    for low in range(0, data.size, PIECE):  # the library holds the interpreter's lock
        before = google_crc32c.extend(before, data[low : low + PIECE])
    return before


def with_checksum(buffer: Bytes, size: int) -> memoryview:
    """Write the checksum of the first `size` bytes of a buffer after them, and return both, a view."""
    buffer[size : size + CHECKSUM] = np.frombuffer(crc32c(buffer[:size]).to_bytes(CHECKSUM, "little"), np.uint8)
    return buffer[: size + CHECKSUM].data


def without_checksum(data: bytes | memoryview, what: str) -> Bytes:
    """Return the bytes before the checksum, a view that is not writable.

    Raises
    ------
    DamagedError : the checksum is that of other bytes; the text begins with `what`
    """
    found = np.frombuffer(data, np.uint8)
    if found.size < CHECKSUM or crc32c(found[:-CHECKSUM]) != int.from_bytes(found[-CHECKSUM:].tobytes(), "little"):
        raise DamagedError(f"{what}: fails its checksum")
    return found[:-CHECKSUM]


def content_digest(data: bytes | memoryview, *, checked: bool) -> str:
    """Return what a partition record states of a file: its SHA-256, or the checksum that `checked` data end with."""
    return f"{MARK}{bytes(data[-CHECKSUM:]).hex()}" if checked else digest(data)


def is_content(data: bytes | memoryview, stated: object) -> bool:
    """Return whether a file holds what its partition record states."""
    if not isinstance(stated, str) or not stated.startswith(MARK):
        return stated == digest(data)
    try:
        without_checksum(data, stated)
    except DamagedError:
        return False
    return stated == content_digest(data, checked=True)
