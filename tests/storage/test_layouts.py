import hashlib
import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from storage.layouts import ArrayLayout, Layout, array_digest, array_metadata, metadata_path, rows_layout

SHARDED = ArrayLayout((10, 3), "float32", ("sample", "channel"), 4, 2)
PLAIN = ArrayLayout((10,), "int64", ("sample",), 5, 5)


def metadata(layout: ArrayLayout) -> dict[str, Any]:  # Any: JSON
    found: dict[str, Any] = json.loads(array_metadata(layout))  # Any: JSON
    return found


def test_partitions_are_whole_but_the_last() -> None:
    assert SHARDED.partitions == 3
    assert [SHARDED.span(p) for p in range(3)] == [(0, 4), (4, 8), (8, 10)]
    assert PLAIN.partitions == 2
    assert [PLAIN.span(p) for p in range(2)] == [(0, 5), (5, 10)]
    assert ArrayLayout((0, 2), "int8", ("a", "b"), 4, 4).partitions == 0


def test_shards_are_named_by_their_place_in_the_grid() -> None:
    assert SHARDED.key(2) == "c/2/0"
    assert PLAIN.key(1) == "c/1"
    assert ArrayLayout((4, 2, 2, 2), "int8", ("n", "h", "w", "d"), 4, 4).key(0) == "c/0/0/0/0"


def test_metadata_lies_beside_the_chunks() -> None:
    assert metadata_path("toy/k", "maps") == "toy/k/data.zarr/maps/zarr.json"
    assert metadata_path("toy/k", "") == "toy/k/data.zarr/zarr.json"


def test_a_layout_comes_back_from_json() -> None:
    layout = Layout(3, {"maps": SHARDED, "label": PLAIN})
    assert Layout.of(json.loads(json.dumps(layout.document()))) == layout
    assert layout.document()["arrays"]["label"] == {
        "shape": [10],
        "dtype": "int64",
        "dimensions": ["sample"],
        "rows": 5,
        "chunk": 5,
    }
    assert Layout.of(Layout(2).document()) == Layout(2)


def test_an_array_with_more_partitions_than_its_stage_is_a_mistake() -> None:
    with pytest.raises(AssertionError, match="maps"):
        Layout(2, {"maps": SHARDED})


def test_large_rows_get_inner_chunks_of_32() -> None:
    assert rows_layout((100, 256), "float32", ("n", "d"), 64) == ArrayLayout((100, 256), "float32", ("n", "d"), 64, 32)


def test_small_rows_and_odd_partitions_are_one_chunk() -> None:
    assert rows_layout((100, 255), "float32", ("n", "d"), 64).chunk == 64  # 1020 bytes a row
    assert rows_layout((100, 256), "float32", ("n", "d"), 48).chunk == 48
    assert rows_layout((100,), "int64", ("n",), 64).chunk == 64


def test_an_array_is_sharded_with_checked_chunks_and_index() -> None:
    found = metadata(SHARDED)
    checked = [
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": "zstd", "configuration": {"level": 1, "checksum": False}},
        {"name": "crc32c"},
    ]
    assert found["shape"] == [10, 3]
    assert found["chunk_grid"]["configuration"]["chunk_shape"] == [4, 3]
    assert found["chunk_key_encoding"] == {"name": "default", "configuration": {"separator": "/"}}
    assert found["dimension_names"] == ["sample", "channel"]
    (shard,) = found["codecs"]
    assert shard["configuration"]["chunk_shape"] == [2, 3]
    assert shard["configuration"]["codecs"] == checked
    assert shard["configuration"]["index_codecs"] == [checked[0], checked[2]]


def test_an_array_whose_chunk_is_its_partition_has_no_shards() -> None:
    found = metadata(PLAIN)
    assert found["chunk_grid"]["configuration"]["chunk_shape"] == [5]
    assert [codec["name"] for codec in found["codecs"]] == ["bytes", "zstd", "crc32c"]
    assert found["codecs"][1]["configuration"]["level"] == 1


@pytest.mark.parametrize(("dtype", "fill"), [("float16", "NaN"), ("bool", False), ("int64", 0), ("uint8", 0)])
def test_what_is_missing_is_nan_where_there_is_one(dtype: str, fill: object) -> None:
    assert metadata(ArrayLayout((2,), dtype, ("n",), 2, 2))["fill_value"] == fill


def test_an_axis_of_length_zero_can_be_laid_out() -> None:
    assert metadata(ArrayLayout((3, 0), "float32", ("n", "d"), 3, 3))["shape"] == [3, 0]


@pytest.mark.parametrize(
    "block",
    [
        np.arange(6, dtype=">i4").reshape(2, 3),
        np.arange(6, dtype="<i4").reshape(2, 3),
        np.arange(6, dtype="<i4").reshape(3, 2, order="F").reshape(2, 3),
        np.arange(12, dtype="<i4").reshape(2, 6)[:, ::2] // 2 + np.array([[0], [0]], "<i4"),
    ],
    ids=["big-endian", "plain", "copied", "strided"],
)
def test_a_digest_is_of_values_in_c_order(block: NDArray[np.generic]) -> None:
    assert array_digest(block) == hashlib.sha256(np.ascontiguousarray(block).astype("<i4").tobytes()).hexdigest()


def test_a_digest_does_not_depend_on_byte_or_memory_order() -> None:
    values = np.arange(6).reshape(2, 3)
    assert array_digest(values.astype(">i8")) == array_digest(np.asfortranarray(values))


def test_digests_of_nothing_and_of_one_number() -> None:
    assert array_digest(np.empty((0, 3))) == hashlib.sha256(b"").hexdigest()
    assert array_digest(np.array(1.0)) == hashlib.sha256(np.float64(1).tobytes()).hexdigest()
    assert array_digest(np.array([True, False])) == hashlib.sha256(b"\1\0").hexdigest()
