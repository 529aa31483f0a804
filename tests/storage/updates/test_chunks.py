from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from numpy.typing import NDArray

from storage.documents import DamagedError
from storage.stores import Store
from storage.updates import chunks
from storage.updates.bits import BITS, Ints
from storage.updates.chunks import Chunking, ChunkWriter, chunking_of, plan_chunks, read_chunk
from storage.updates.parameters import Parameter, lay_out, row_bytes

rng = np.random.default_rng(0)
SHAPES: dict[str, tuple[str, tuple[int, ...]]] = {
    "conv.weight": ("float32", (6, 2, 3, 3)),
    "conv.bias": ("float32", (6,)),
    "fc.weight": ("float64", (4, 5)),
    "half.weight": ("float16", (3, 7)),
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def write_rows(store: Store, parameter: Parameter, chunking: Chunking, rows: Ints, pieces: int = 3) -> Ints:
    """Write rows in several pieces; return the differences that must be there."""
    writer = ChunkWriter(parameter, chunking, parameter.name, lambda name, data, checked=False: store.write(name, data))
    previous = np.zeros(parameter.size, rows.dtype)
    before = previous
    for low in range(0, len(rows), pieces):
        writer.add(rows[low : low + pieces], before)
        before = rows[min(low + pieces, len(rows)) - 1]
    assert writer.close() == len(rows)
    return np.diff(np.concatenate([previous[None], rows]), axis=0)


def rows_of(parameter: Parameter, n: int) -> Ints:
    info = np.iinfo(BITS[parameter.dtype])
    return rng.integers(info.min, info.max, (n, parameter.size), BITS[parameter.dtype], endpoint=True)


def shaped(differences: Ints, parameter: Parameter) -> NDArray[np.signedinteger]:
    return differences.reshape(-1, *parameter.shape)


@pytest.mark.parametrize("parameter", lay_out(SHAPES), ids=lambda p: p.name)
@pytest.mark.parametrize(("n", "chunk"), [(1, 1), (7, 7), (7, 3), (6, 3), (2, 5)])
@pytest.mark.parametrize("packed", [False, True])
def test_zarr_reads_the_array(store: Store, parameter: Parameter, n: int, chunk: int, packed: bool) -> None:
    expected = write_rows(store, parameter, Chunking(chunk, parameter.shape[0], packed), rows_of(parameter, n))
    array = zarr.open_array(store.path(parameter.name), mode="r")
    assert array.dtype == BITS[parameter.dtype]
    assert array.attrs["weights"] == parameter.dtype
    np.testing.assert_array_equal(array[:], shaped(expected, parameter))
    chunking = chunking_of(store.read(f"{parameter.name}/zarr.json"))
    assert chunking == Chunking(min(n, chunk), parameter.shape[0], packed)
    found = [read_chunk(store, parameter.name, parameter, i, chunking) for i in range(-(-n // chunking.rows))]
    np.testing.assert_array_equal(np.concatenate(found)[:n], expected)


@pytest.mark.parametrize(
    ("outputs", "most", "per_chunk"), [(6, 100, 1), (6, 300, 3), (7, 300, 4), (7, 200, 2), (7, 1, 1)]
)
def test_a_large_update_is_cut_along_its_outputs(
    store: Store, monkeypatch: pytest.MonkeyPatch, outputs: int, most: int, per_chunk: int
) -> None:
    monkeypatch.setattr(chunks, "MOST", most)
    monkeypatch.setattr(chunks, "USUAL", 100)
    monkeypatch.setattr(chunks, "LEAST", 10)
    (parameter,) = lay_out({"conv.weight": ("float32", (outputs, 2, 3, 3))})  # 72 bytes an output
    chunking = plan_chunks([parameter], 4)["conv.weight"]
    assert chunking == Chunking(1, per_chunk)
    expected = write_rows(store, parameter, chunking, rows_of(parameter, 4))
    array = zarr.open_array(store.path("conv.weight"), mode="r")
    assert array.chunks == (1, per_chunk, 2, 3, 3)
    np.testing.assert_array_equal(array[:], shaped(expected, parameter))
    assert chunking_of(store.read("conv.weight/zarr.json")) == chunking
    for index in range(4):
        found = read_chunk(store, "conv.weight", parameter, index, chunking)
        np.testing.assert_array_equal(found, expected[index : index + 1])
        last = chunking.parts(parameter) - 1
        raw = store.read(f"conv.weight/c/{index}/{last}/0/0/0")
        assert len(raw) == 72 * per_chunk + 4
        assert not any(raw[72 * (outputs - last * per_chunk) : -4])  # beyond the array


def test_a_prime_number_of_outputs_makes_few_files() -> None:
    parameters = lay_out({"head.weight": ("float32", (21841, 1024))})  # ImageNet-21k: 89.5 MB
    chunking = plan_chunks(parameters, 100)["head.weight"]
    assert chunking == Chunking(1, 10921)
    assert chunking.parts(parameters[0]) == 2


def test_xarray_opens_all_arrays_of_a_segment(store: Store) -> None:
    expected = {}
    for parameter in lay_out(SHAPES):
        expected[parameter.name] = shaped(
            write_rows(store, parameter, Chunking(2, parameter.shape[0]), rows_of(parameter, 5)), parameter
        )
    store.write("zarr.json", b'{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    data = xr.open_zarr(store.path(), consolidated=False)
    for name, values in expected.items():
        assert data[name].dims[0] == "row"
        np.testing.assert_array_equal(data[name].to_numpy(), values)


def test_chunks_are_balanced_and_bounded() -> None:
    parameters = lay_out({"a": ("float32", (1000, 1000)), "b": ("float32", (10,)), "c": ("float32", (8000, 4000))})
    plan = plan_chunks(parameters, 25)
    # 16 MB, all of it, 2 x 64 MB
    assert plan == {"a": Chunking(4, 1000), "b": Chunking(25, 10), "c": Chunking(1, 4000)}
    assert plan_chunks(parameters, 1)["a"] == Chunking(1, 1000)


@pytest.mark.parametrize("index", [0, 100, -5, -1])
def test_a_flipped_byte_is_found(store: Store, index: int) -> None:
    (parameter,) = lay_out({"a": ("float32", (5, 5))})
    write_rows(store, parameter, Chunking(4, 5), rows_of(parameter, 4))
    raw = bytearray(store.read("a/c/0/0/0"))
    raw[index] ^= 1
    store.write("a/c/0/0/0", bytes(raw))
    with pytest.raises(DamagedError, match=r"^a/c/0/0/0: fails its checksum$"):
        read_chunk(store, "a", parameter, 0, Chunking(4, 5))


def test_a_short_or_lost_chunk_is_found(store: Store) -> None:
    (parameter,) = lay_out({"a": ("float32", (5, 5))})
    write_rows(store, parameter, Chunking(4, 5), rows_of(parameter, 4))
    store.write("a/c/0/0/0", store.read("a/c/0/0/0")[:-1])
    with pytest.raises(DamagedError, match=r"^a/c/0/0/0: expected 404 bytes, found 403$"):
        read_chunk(store, "a", parameter, 0, Chunking(4, 5))
    store.remove("a/c/0/0/0")
    with pytest.raises(DamagedError, match=r"^a/c/0/0/0: expected a file of a complete stage, found none$"):
        read_chunk(store, "a", parameter, 0, Chunking(4, 5))


def test_parameters_lie_apart_in_a_row_and_are_seen_in_it() -> None:
    parameters = lay_out(SHAPES)
    rows = rng.integers(0, 256, (3, row_bytes(parameters)), np.uint8)
    ends = [0, *(p.offset + p.nbytes for p in parameters)]
    assert all(p.offset % 16 == 0 and p.offset >= end for p, end in zip(parameters, ends, strict=False))
    for p in parameters:
        expected = np.frombuffer(rows[1].tobytes()[p.offset : p.offset + p.nbytes], BITS[p.dtype])
        np.testing.assert_array_equal(p.within(rows)[1], expected)


def test_a_dtype_without_a_lossless_form_is_named() -> None:
    with pytest.raises(ValueError, match=r"'q': expected dtype float16, bfloat16, float32, float64, found int8"):
        lay_out({"q": ("int8", (2,))})
