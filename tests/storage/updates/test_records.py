"""Records of any length come back from chunk files of bounded size; damage is found and named."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from storage.checksums import Bytes
from storage.documents import DamagedError
from storage.stores import Store, open_store
from storage.updates.records import Place, RecordReader, RecordWriter, chunk_bytes
from storage.updates.tables import Record, Settings, read_table, table_bytes


def write_records(store: Store, lengths: list[int], capacity: int, *, threads: int = 0) -> list[tuple[Place, Bytes]]:
    """Write random records below "it"; return their places and bytes."""
    rng, found, pool = np.random.default_rng(0), [], ThreadPoolExecutor(1) if threads else None
    writer = RecordWriter("it", capacity, lambda name, data, checked=False: store.write(name, bytes(data)), pool)
    for length in lengths:
        data: Bytes = rng.integers(0, 256, length, np.uint8)
        room, place = writer.room(length)
        room[:] = data
        found.append((place, data))
    writer.close()
    if pool is not None:
        pool.shutdown()
    return found


@pytest.mark.parametrize("threads", [0, 1])
def test_records_come_back_in_any_order(tmp_path: Path, threads: int) -> None:
    store = open_store(str(tmp_path), create=True)
    lengths = [5, 0, 64, 1, 33, 500, 7, 64, 64]  # one is longer than a chunk
    written = write_records(store, lengths, 128, threads=threads)
    reader = RecordReader(store, "it")
    for place, data in [*written, *reversed(written)]:
        np.testing.assert_array_equal(reader.read(place), data)
    sizes = [len(store.read(f"it/{chunk}")) for chunk in range(written[-1][0].chunk + 1)]
    assert max(sizes) == 512 + 4  # the long record, padded to 16 bytes, and the checksum
    assert sorted(sizes)[-2] <= 128 + 4


def test_a_thread_writes_the_same_files(tmp_path: Path) -> None:
    stores = [open_store(str(tmp_path / name), create=True) for name in ("one", "two")]
    for threads, store in enumerate(stores):
        write_records(store, [40] * 20, 100, threads=threads)
    names = sorted(stores[0].files("it"))
    assert len(names) == 10
    assert [stores[0].read(f"it/{name}") for name in names] == [stores[1].read(f"it/{name}") for name in names]


@pytest.mark.parametrize("byte", [0, 50, -1])
def test_a_changed_byte_is_named(tmp_path: Path, byte: int) -> None:
    store = open_store(str(tmp_path), create=True)
    written = write_records(store, [40] * 4, 100)
    data = bytearray(store.read("it/1"))
    data[byte] ^= 1
    store.write("it/1", bytes(data))
    reader = RecordReader(store, "it")
    np.testing.assert_array_equal(reader.read(written[0][0]), written[0][1])
    with pytest.raises(DamagedError, match=r"it/1: fails its checksum"):
        reader.read(written[2][0])


def test_a_missing_and_a_short_file_are_named(tmp_path: Path) -> None:
    store = open_store(str(tmp_path), create=True)
    written = write_records(store, [40] * 4, 100)
    store.write("it/0", store.read("it/1")[:10])
    with pytest.raises(DamagedError, match=r"it/0: fails its checksum"):
        RecordReader(store, "it").read(written[0][0])
    with pytest.raises(DamagedError, match=r"it/7: expected a file"):
        RecordReader(store, "it").read(Place(7, 0, 1))


def test_chunks_hold_a_record_and_are_bounded() -> None:
    assert chunk_bytes([10, 100 * 2**20], 3) == [48, 100 * 2**20]
    assert sum(chunk_bytes([2**20] * 32, 1000)) <= 128 * 2**20  # two buffers each


def test_the_table_comes_back() -> None:
    records = {
        "a.weight": [
            Record("factors", Place(0, 16, 8), Settings(0.1, 0.9, 0.2, 1e-3, True, True, 0.5, True), (2, 3), (2, 1)),
            Record("weights", Place(1, 0, 99), momentum=True),
        ],
        "b.weight": [Record("int8", Place(3, 2, 1)), Record("still", Place(0, 0, 0))],
    }
    assert read_table(table_bytes(records), "it") == records
    with pytest.raises(DamagedError, match="it: expected a table of records"):
        read_table(b"nonsense", "it")
