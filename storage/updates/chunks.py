"""A parameter's updates in a segment: one Zarr v3 array (row, *shape) of integer differences, chunked along rows.

This module builds the chunk files in one buffer for all chunks. Zarr's own copies would cost several times a raw
write. The files are those that Zarr writes for the codecs bytes (little-endian) and crc32c, and Zarr reads them.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numcodecs.blosc import Blosc  # type: ignore[import-untyped]  # it has no types

from storage.checksums import CHECKSUM, Bytes, Write, with_checksum, without_checksum
from storage.direct import aligned_zeros
from storage.documents import DamagedError, Document, canonical
from storage.stores import Store
from storage.updates.bits import BITS, Ints, subtract_rows
from storage.updates.parameters import Parameter

MOST = 64 * 2**20  # bytes of a chunk file that holds one update
LEAST, USUAL = 4 * 2**20, 16 * 2**20  # bytes of a chunk file that holds several
BUFFERS = 256 * 2**20  # bytes of all buffers together, unless LEAST or a layer's own size asks for more
# Configuration of Zarr's codec. Level 5 takes twice as long for a percent less.
PACKING: dict[str, Any] = {"cname": "zstd", "clevel": 3, "shuffle": "shuffle", "blocksize": 0}  # Any: JSON


@dataclass(frozen=True)
class Chunking:
    """The chunks of an array: each has `rows` rows, and `outputs` of the first parameter axis (all if rows > 1).

    The last chunks have the same size, with zeros beyond the array, as in Zarr's regular grid. Packed chunks are
    compressed: their bytes by significance, then zstd, by Zarr's codec blosc.
    """

    rows: int
    outputs: int
    packed: bool = False

    def parts(self, parameter: Parameter) -> int:
        """Return the number of chunks along the first axis of a parameter."""
        return -(-parameter.shape[0] // self.outputs)


def plan_chunks(parameters: Iterable[Parameter], steps: int) -> dict[str, Chunking]:
    """Return the chunking of every parameter's array: a function of shapes and the steps of a segment."""
    found = {}
    parameters = list(parameters)
    large = sum(p.nbytes * steps > LEAST for p in parameters)
    target = min(USUAL, max(LEAST, BUFFERS // max(1, large)))
    for parameter in parameters:
        most = max(1, min(steps, target // max(1, parameter.nbytes)))
        rows = -(-steps // -(-steps // most))  # the same number of chunks, none nearly empty
        found[parameter.name] = Chunking(rows, _outputs(parameter))
    return found


class ChunkWriter:
    """Writes a parameter's rows as whole chunks below `path`. Holds one chunk."""

    def __init__(self, parameter: Parameter, chunking: Chunking, path: str, write: Write) -> None:
        self.parameter, self.chunking = parameter, chunking
        self._path, self._write = path, write
        bits = np.dtype(BITS[parameter.dtype])
        self._width = _width(parameter, chunking)
        self._raw: Bytes = aligned_zeros(chunking.rows * self._width * bits.itemsize + CHECKSUM)
        self._ints: Ints = self._raw[:-CHECKSUM].view(bits).reshape(chunking.rows, self._width)
        self._index, self._filled = 0, 0

    def add(self, new: Ints, previous: Ints) -> None:
        """Append the differences of the rows `new` (n, P); `previous` (P,) is the row before them."""
        done = 0
        while done < len(new):
            count = min(len(new) - done, self.chunking.rows - self._filled)
            before = new[done - 1] if done else previous
            for part in range(self.chunking.parts(self.parameter)):
                columns = slice(part * self._width, min((part + 1) * self._width, self.parameter.size))
                target = self._ints[self._filled : self._filled + count]
                target[:, columns.stop - columns.start :] = 0  # the last part may be short
                subtract_rows(
                    new[done : done + count, columns], before[columns], target[:, : columns.stop - columns.start]
                )
                if self._filled + count == self.chunking.rows:
                    self._flush(part, self.chunking.rows)
            done += count
            self._filled += count
            if self._filled == self.chunking.rows:
                self._index, self._filled = self._index + 1, 0

    def close(self) -> int:
        """Write the last chunk and the array's metadata; return the number of rows."""
        rows, chunk = self._index * self.chunking.rows + self._filled, self.chunking.rows
        if self._filled:
            if self._index:
                self._ints[self._filled :] = 0  # Zarr's chunks all have one size
            else:
                chunk = self._filled
            self._flush(0, chunk)
        metadata = array_document(self.parameter, rows, replace(self.chunking, rows=max(1, chunk)))
        self._write(f"{self._path}/zarr.json", canonical(metadata))
        return rows

    def _flush(self, part: int, rows: int) -> None:
        """Write `rows` rows of the buffer as a chunk."""
        size, raw = rows * self._width * self._ints.itemsize, self._raw
        if self.chunking.packed:
            raw = pack(raw[:size], self._ints.itemsize)
            size = raw.size - CHECKSUM
        name = f"{self._path}/{chunk_key(self.parameter, self._index, part)}"
        self._write(name, with_checksum(raw, size), checked=True)


def pack(data: Bytes, itemsize: int) -> Bytes:
    """Return compressed bytes, with room for a checksum after them; the same bytes in every process."""
    codec = Blosc(PACKING["cname"], PACKING["clevel"], Blosc.SHUFFLE, PACKING["blocksize"])
    packed = np.frombuffer(codec.encode(data.view(f"i{itemsize}")), np.uint8)  # it takes the size of a value from there
    return np.concatenate([packed, np.zeros(CHECKSUM, np.uint8)])


def chunk_key(parameter: Parameter, index: int, part: int) -> str:
    """Return the name of a chunk, relative to its array."""
    return "/".join(["c", str(index), str(part), *("0" for _ in parameter.shape[1:])])


def array_document(parameter: Parameter, rows: int, chunking: Chunking) -> Document:
    """Return the metadata of a parameter's array."""
    chunk, itemsize = [chunking.rows, chunking.outputs, *parameter.shape[1:]], np.dtype(BITS[parameter.dtype]).itemsize
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [rows, *parameter.shape],
        "data_type": BITS[parameter.dtype],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [
            {"name": "bytes", "configuration": {"endian": "little"}},
            *([{"name": "blosc", "configuration": {"typesize": itemsize, **PACKING}}] if chunking.packed else []),
            {"name": "crc32c"},
        ],
        "attributes": {"weights": parameter.dtype, "values": "differences of the weights' bit patterns, wrapping"},
        "dimension_names": ["row", *(f"{parameter.name}_{axis}" for axis in range(len(parameter.shape)))],
    }


def chunking_of(metadata: bytes) -> Chunking:
    """Return the chunking of the array with this metadata."""
    document = json.loads(metadata)
    rows, first = document["chunk_grid"]["configuration"]["chunk_shape"][:2]
    return Chunking(int(rows), int(first), any(codec["name"] == "blosc" for codec in document["codecs"]))


def read_chunk(store: Store, path: str, parameter: Parameter, index: int, chunking: Chunking) -> Ints:
    """Return the differences (chunk rows, P) of a chunk of the array at `path`, all parts of it.

    Raises
    ------
    DamagedError : a file is missing, has another length or fails its checksum; names the file
    """
    bits = np.dtype(BITS[parameter.dtype])
    size = chunking.rows * _width(parameter, chunking) * bits.itemsize
    files = [f"{path}/{chunk_key(parameter, index, part)}" for part in range(chunking.parts(parameter))]
    ints = [_checked(store, file, size, packed=chunking.packed).view(bits).reshape(chunking.rows, -1) for file in files]
    return ints[0] if len(ints) == 1 else np.concatenate(ints, axis=1)[:, : parameter.size]


def read_file(store: Store, file: str) -> bytes:
    """Return a file of an archive; DamagedError without one."""
    try:
        return store.read(file)
    except FileNotFoundError:
        raise DamagedError(f"{file}: expected a file of a complete stage, found none") from None


def _checked(store: Store, file: str, size: int, *, packed: bool) -> Bytes:
    """Return the `size` bytes that a chunk file holds before its checksum."""
    data = read_file(store, file)
    if not packed and len(data) != size + CHECKSUM:
        raise DamagedError(f"{file}: expected {size + CHECKSUM} bytes, found {len(data)}")
    found = without_checksum(data, file)
    if packed:
        found = np.frombuffer(Blosc().decode(found.tobytes()), np.uint8)
    if found.size != size:
        raise DamagedError(f"{file}: expected {size} bytes, found {found.size}")
    return found


def _outputs(parameter: Parameter) -> int:
    """Return the share of the first axis in a chunk file of at most MOST bytes; all parts but the last are equal."""
    outputs = parameter.shape[0]
    most = max(1, min(outputs, MOST * outputs // max(1, parameter.nbytes)))
    return -(-outputs // -(-outputs // most))


def _width(parameter: Parameter, chunking: Chunking) -> int:
    """Return the number of values of a row in a chunk."""
    return parameter.size // parameter.shape[0] * chunking.outputs
