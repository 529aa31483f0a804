"""The layout of a stage's arrays: shapes, partitions, chunks and codecs."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.group import GroupMetadata
from zarr.storage import MemoryStore, StorePath

from storage.documents import Document, digest
from storage.stores import Store

ZarrArray: TypeAlias = "zarr.Array[zarr.core.metadata.ArrayV3Metadata]"

CHUNK_ROWS = 32
SMALL_ROW = 1024  # bytes; a smaller row does not get an inner chunk of its own


@dataclass(frozen=True)
class ArrayLayout:
    """One array, created whole: partition p is its rows `p * rows : (p + 1) * rows` and one shard.

    Parameters
    ----------
    shape : shape of the whole array
    dtype : NumPy name
    dimensions : a name per axis, for xarray
    rows : leading rows of a partition
    chunk : leading rows of an inner chunk; divides `rows`
    """

    shape: tuple[int, ...]
    dtype: str
    dimensions: tuple[str, ...]
    rows: int
    chunk: int

    @property
    def bytes(self) -> int:
        """The bytes of the whole array in memory."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def partitions(self) -> int:
        """The number of partitions of the array."""
        return -(-self.shape[0] // self.rows)

    def check(self) -> None:
        """Raise ValueError or TypeError unless shape, dtype and rows are valid; for layouts read from a store."""
        np.dtype(self.dtype)
        counts = (*self.shape, self.rows - 1, self.chunk - 1)
        if not self.shape or any(type(count) is not int or count < 0 for count in counts):
            raise ValueError(f"expected a valid layout of an array, found {self}")

    def span(self, partition: int) -> tuple[int, int]:
        """Return the first and the past-the-end row of a partition."""
        return partition * self.rows, min((partition + 1) * self.rows, self.shape[0])

    def between(self, start: int, stop: int) -> range:
        """Return the partitions that hold the rows `start:stop`."""
        return range(start // self.rows, -(-stop // self.rows) if stop > start else start // self.rows)

    def key(self, partition: int) -> str:
        """Return the name of a partition's shard, relative to the array."""
        return f"c/{partition}{'/0' * (len(self.shape) - 1)}"


@dataclass(frozen=True)
class Layout:
    """The arrays and partitions of a stage, stored with it: a function of shapes and config only.

    Parameters
    ----------
    partitions : number of partitions; 0 where it is open
    arrays : by name
    open_ended : files only, in as many partitions as there are when the stage is sealed
    """

    partitions: int
    arrays: Mapping[str, ArrayLayout] = field(default_factory=dict)
    open_ended: bool = False

    def __post_init__(self) -> None:
        for name, array in self.arrays.items():
            assert array.partitions <= self.partitions, (name, array, self.partitions)

    @property
    def n_bytes(self) -> int:
        """Bytes of the whole arrays before compression."""
        return sum(array.bytes for array in self.arrays.values())

    def document(self) -> Document:
        """Return the layout as JSON."""
        arrays = {
            name: {**asdict(a), "shape": list(a.shape), "dimensions": list(a.dimensions)}
            for name, a in self.arrays.items()
        }
        return {"partitions": self.partitions, "arrays": arrays, **({"open_ended": True} if self.open_ended else {})}

    @classmethod
    def of(cls, document: Document) -> "Layout":
        """Return the layout in a document; KeyError, TypeError or ValueError if it does not describe one."""
        arrays = {
            name: ArrayLayout(tuple(a["shape"]), a["dtype"], tuple(a["dimensions"]), a["rows"], a["chunk"])
            for name, a in document["arrays"].items()
        }
        for array in arrays.values():
            array.check()
        partitions, most = document["partitions"], max((array.partitions for array in arrays.values()), default=0)
        if type(partitions) is not int or partitions < most:
            raise ValueError(f"expected a number of partitions that fits the arrays, found {partitions!r}")
        return cls(partitions, arrays, document.get("open_ended", False))

    def closed(self, markers: Iterable[str]) -> "Layout":
        """Return the layout with its number of partitions, counted in file names of partition records if open."""
        if not self.open_ended:
            return self
        numbers = [int(name.removesuffix(".json")) for name in markers if name.removesuffix(".json").isdecimal()]
        return replace(self, partitions=1 + max(numbers, default=-1), open_ended=False)


def rows_layout(shape: tuple[int, ...], dtype: str, dimensions: tuple[str, ...], rows: int) -> ArrayLayout:
    """Return the layout of an array with partitions of `rows` rows: below `CHUNK_ROWS`, or a multiple of it."""
    row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * np.dtype(dtype).itemsize
    whole = row_bytes < SMALL_ROW or rows % CHUNK_ROWS
    return ArrayLayout(shape, dtype, dimensions, rows, rows if whole else CHUNK_ROWS)


def fill_value(layout: ArrayLayout) -> float | bool | int:
    """Return what Zarr gives for rows that were never written."""
    return np.nan if np.dtype(layout.dtype).kind == "f" else False if layout.dtype == "bool" else 0


def is_fill(layout: ArrayLayout, block: NDArray[np.generic]) -> bool:
    """Say whether a block holds nothing but what Zarr gives for rows that were never written."""
    fill = fill_value(layout)
    # Most blocks differ in the first row.
    return all(bool((np.isnan(part) if fill != fill else part == fill).all()) for part in (block[:1], block))


@lru_cache(maxsize=256)
def array_metadata(layout: ArrayLayout) -> bytes:
    """Return the `zarr.json` of an array: zstd level 1, then crc32c, so that every flipped bit is found."""
    inner = (layout.chunk, *layout.shape[1:])
    array = zarr.create_array(
        MemoryStore(),
        shape=layout.shape,
        dtype=layout.dtype,
        chunks=tuple(max(1, size) for size in inner),
        shards=None if layout.chunk == layout.rows else (layout.rows, *layout.shape[1:]),
        filters=None,
        compressors=[ZstdCodec(level=1), Crc32cCodec()],
        fill_value=fill_value(layout),
        dimension_names=layout.dimensions,
    )
    return array.metadata.to_buffer_dict(default_buffer_prototype())["zarr.json"].to_bytes()


def group_metadata(attributes: Document) -> bytes:
    """Return the `zarr.json` of a group with these attributes."""
    return GroupMetadata(attributes).to_buffer_dict(default_buffer_prototype())["zarr.json"].to_bytes()


def group_attributes(metadata: bytes) -> Document:
    """Return the attributes in the `zarr.json` of a group; ValueError, TypeError or KeyError where it is damaged."""
    return GroupMetadata.from_dict(json.loads(metadata)).attributes


def metadata_path(path: str, name: str) -> str:
    """Return the path of the metadata of array `name`, or of the group, of the stage at `path`."""
    return "/".join(filter(None, [path, "data.zarr", name, "zarr.json"]))


def open_array(store: Store, path: str, name: str, metadata: bytes, *, read_only: bool) -> ZarrArray:
    """Open array `name` of the stage at `path`, with its metadata."""
    place = StorePath(store.zarr(f"{path}/data.zarr/{name}", read_only=read_only))
    found: ZarrArray = zarr.Array.from_dict(place, json.loads(metadata))
    # Not stored in the metadata. Without it, Zarr does not write a chunk of fill values, which then looks lost.
    return found.with_config({"write_empty_chunks": True})


def write_shard(
    store: Store, path: str, name: str, layout: ArrayLayout, partition: int, block: NDArray[np.generic]
) -> None:
    """Write a partition's rows of array `name` of the stage at `path`, so that they survive a power cut."""
    array = open_array(store, path, name, array_metadata(layout), read_only=False)
    start, stop = layout.span(partition)
    shard = f"{path}/data.zarr/{name}/{layout.key(partition)}"
    try:
        array[start:stop] = block
    except ValueError:  # Zarr reads the old shard first, and a crash of the machine has damaged it
        store.remove(shard)
        array[start:stop] = block
    store.flush(shard)


def array_digest(block: NDArray[np.generic]) -> str:
    """Return the SHA-256 of a block's values in C order, little-endian."""
    data = np.ascontiguousarray(block)
    if data.dtype.byteorder == ">":
        data = data.astype(data.dtype.newbyteorder("<"))
    return digest(data.view(np.uint8).data if data.size else b"")
