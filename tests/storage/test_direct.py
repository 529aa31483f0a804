"""Files past the page cache: the same bytes as others, and others where the file system cannot do that."""

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage import stores
from storage.direct import ALIGNMENT, LEAST, PIECE, aligned_zeros, write_direct
from storage.stores import open_store

SIZES = [LEAST, LEAST + 1, LEAST + ALIGNMENT - 1, 3 * PIECE, 3 * PIECE + ALIGNMENT, 3 * PIECE + 2 * ALIGNMENT + 17]


def content(size: int) -> bytes:
    return np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8).tobytes()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("offset", [None, 0, 1, 512, ALIGNMENT])
def test_the_bytes_of_a_file(tmp_path: Path, size: int, offset: int | None) -> None:
    """Sizes around those of writes, and memory that begins at a page or elsewhere."""
    data = content(size)
    given: bytes | memoryview = data
    if offset is not None:
        room = aligned_zeros(size + offset)
        assert (room.size, room.ctypes.data % ALIGNMENT, int(room.sum())) == (size + offset, 0, 0)
        room[offset:] = np.frombuffer(data, np.uint8)
        given = room[offset:].data
    open_store(str(tmp_path), create=True).write_large("folder/file", given)
    assert (tmp_path / "folder/file").read_bytes() == data
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["file"]


def test_the_bytes_of_values_that_are_not_bytes(tmp_path: Path) -> None:
    values = np.arange(LEAST, dtype=np.float32)
    path = tmp_path / "file"
    if write_direct(path, values.data):
        np.testing.assert_array_equal(np.fromfile(path, np.float32), values)


def test_a_small_file_is_left_to_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "write_direct", None)
    data = content(LEAST - 1)
    open_store(str(tmp_path), create=True).write_large("file", data)
    assert (tmp_path / "file").read_bytes() == data


@pytest.mark.parametrize("place", ["open", "write"])
def test_a_file_system_that_cannot_do_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """As on tmpfs, which refuses the file, or on others, which refuse the first write: the cache takes the file."""
    store, data, opened = open_store(str(tmp_path), create=True), content(LEAST + 5), os.open

    def refuses(target: Any, *given: Any) -> int:  # Any: of both functions
        if place == "write" or given[0] & os.O_DIRECT:
            raise OSError(errno.EINVAL, "invalid argument")
        return opened(target, *given)

    with monkeypatch.context() as patched:
        patched.setattr(os, place, refuses)
        assert not write_direct(tmp_path / "alone", data)
        store.write_large("file", data)
    assert not (tmp_path / "alone").exists()
    assert (tmp_path / "file").read_bytes() == data


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stores, "write_direct", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/file'$"):
        open_store(str(tmp_path), create=True).write_large("file", content(LEAST))
    assert not (tmp_path / "file").exists()
