"""Named tensors as safetensors bytes, and back, for any dtype: plain bytes, without torch.

The format (https://huggingface.co/docs/safetensors): 8 bytes length of the header, the header as JSON, the data.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storage.documents import DamagedError, canonical

Bytes = NDArray[np.uint8]

ALIGNMENT = 8
WIDTHS = {  # bytes of an element, by the name of its type
    **{"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2},
    **{"I8": 1, "U8": 1, "BOOL": 1},
}


@dataclass(frozen=True)
class RawTensor:
    """A tensor in its stored form.

    Parameters
    ----------
    dtype : name in the format, as F32
    shape : sizes of its axes
    data : (bytes,) uint8, C order, little-endian
    """

    dtype: str
    shape: tuple[int, ...]
    data: Bytes


def encode_tensors(tensors: Mapping[str, RawTensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return a safetensors file; equal tensors and texts give equal bytes."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    order = sorted(tensors, key=lambda name: (-_width(tensors[name]), name))  # wide ones first: all stay aligned
    offset = 0
    for name in order:
        tensor = tensors[name]
        stop = offset + tensor.data.nbytes
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [offset, stop]}
        offset = stop
    text = canonical(header)
    text += b" " * (-len(text) % ALIGNMENT)
    return b"".join([len(text).to_bytes(8, "little"), text, *(tensors[name].data.data for name in order)])


def decode_tensors(data: bytes, what: str) -> tuple[dict[str, RawTensor], dict[str, str]]:
    """Return the tensors of a safetensors file, views of `data`, and its texts.

    Raises
    ------
    DamagedError : not a safetensors file; the text begins with `what`
    """
    start = 8 + int.from_bytes(data[:8], "little")
    try:
        if start > len(data):
            raise ValueError(f"its header has {start - 8} bytes, the file {len(data)}")
        header = json.loads(data[8:start])
        metadata = header.pop("__metadata__", {})
        whole = np.frombuffer(data, np.uint8)[start:]
        found = {}
        for name, entry in header.items():
            first, stop = entry["data_offsets"]
            if not 0 <= first <= stop <= whole.size:
                raise ValueError(f"{name} ends beyond the file")
            dtype, shape = entry["dtype"], tuple(entry["shape"])
            if any(type(size) is not int or size < 0 for size in shape):
                raise ValueError(f"{name} has the shape {shape}")
            if dtype not in WIDTHS or WIDTHS[dtype] * math.prod(shape) != stop - first:
                raise ValueError(f"{name} is {dtype} {shape}, {stop - first} bytes are there")
            found[name] = RawTensor(dtype, shape, whole[first:stop])
        metadata = {str(name): str(text) for name, text in metadata.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(f"{what}: expected a safetensors file, found other content: {error}") from None
    return found, metadata


def _width(tensor: RawTensor) -> int:
    """Return the bytes of an element; 1 where there is none."""
    return tensor.data.nbytes // max(1, int(np.prod(tensor.shape, dtype=np.int64))) or 1


def same_tensor(one: RawTensor | None, other: RawTensor | None) -> bool:
    """Return whether two stored tensors have the same form and bytes; False where one is missing."""
    if one is None or other is None:
        return False
    return (one.dtype, one.shape) == (other.dtype, other.shape) and np.array_equal(one.data, other.data)
