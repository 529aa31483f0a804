"""Large files written past the page cache: an archive's, which are not read soon.

A file in the cache takes memory that trainings and data loaders need. To get that memory costs more CPU time than the
rest of a write: on a virtual machine 40 ms for 16 MB, where a write past the cache takes 3 ms.
"""

import errno
import fcntl
import mmap
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LEAST = 2**20  # bytes of a file from which this is worth it
PIECE = 2**20  # bytes of a write from memory that is not aligned; the copies stay in the processor's cache
ALIGNMENT = 4096  # bytes, of addresses, offsets and lengths


def aligned_zeros(size: int) -> NDArray[np.uint8]:
    """Return zeros (size,) in memory that `write_direct` writes without a copy."""
    # Shared, so that no process that is forked meanwhile (a data loader's) makes the kernel copy its pages.
    return np.frombuffer(mmap.mmap(-1, max(1, size)), np.uint8)[:size]


def write_direct(path: Path, data: bytes | memoryview) -> bool:
    """Write a new file past the page cache, and return once it is on the disk.

    Returns
    -------
    whether it is written; False leaves no file, where the file system does not do this
    """
    flag, values = getattr(os, "O_DIRECT", 0), memoryview(data).cast("B")
    if not flag:
        return False
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | flag, 0o666)
    except OSError as error:
        return _refused(error, path)
    try:
        whole = len(values) // ALIGNMENT * ALIGNMENT
        if np.frombuffer(values, np.uint8).ctypes.data % ALIGNMENT:
            _write_copied(descriptor, values[:whole])
        else:
            _write_all(descriptor, values[:whole])
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~flag)
        _write_all(descriptor, values[whole:])
        os.fsync(descriptor)
    except OSError as error:
        return _refused(error, path)
    finally:
        os.close(descriptor)
    return True


def _write_copied(descriptor: int, data: memoryview) -> None:
    """Write bytes by way of memory that is aligned."""
    piece = aligned_zeros(PIECE).data
    for start in range(0, len(data), PIECE):
        part = data[start : start + PIECE]
        piece[: len(part)] = part
        _write_all(descriptor, piece[: len(part)])


def _write_all(descriptor: int, data: memoryview) -> None:
    """Write all bytes; a full disk raises OSError."""
    done = 0
    while done < len(data):
        done += os.write(descriptor, data[done:])


def _refused(error: OSError, path: Path) -> bool:
    """Return False, without a file, where the file system does not write past its cache; else raise the error."""
    if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
        raise error
    path.unlink(missing_ok=True)
    return False
