import json

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from storage.documents import DamagedError
from storage.tensors import RawTensor, decode_tensors, encode_tensors


def raw(dtype: str, values: torch.Tensor) -> RawTensor:
    return RawTensor(dtype, tuple(values.shape), values.reshape(-1).view(torch.uint8).numpy())


TENSORS = {
    "a.weight": torch.arange(6, dtype=torch.float64).reshape(2, 3),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "byte": torch.tensor([1, 2, 3], dtype=torch.uint8),
    "count": torch.tensor(7),
    "none": torch.zeros(0, 4),
}
DTYPES = {"a.weight": "F64", "half": "BF16", "byte": "U8", "count": "I64", "none": "F32"}
RAW = {name: raw(DTYPES[name], values) for name, values in TENSORS.items()}


def test_the_library_reads_what_is_written() -> None:
    found = load(encode_tensors(RAW, {"note": "x"}))
    assert found.keys() == TENSORS.keys()
    for name, values in TENSORS.items():
        assert found[name].dtype == values.dtype, name
        assert torch.equal(found[name], values), name


def test_what_the_library_writes_is_read() -> None:
    found, texts = decode_tensors(save(TENSORS, {"note": "x"}), "it")
    assert texts == {"note": "x"}
    for name, tensor in RAW.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        np.testing.assert_array_equal(found[name].data, tensor.data)


def test_order_is_no_part_of_the_bytes_and_wide_values_are_aligned() -> None:
    data = encode_tensors(RAW)
    assert data == encode_tensors(dict(reversed(RAW.items())))
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    assert start % 8 == 0
    assert all(header[name]["data_offsets"][0] % 8 == 0 for name in ("a.weight", "count"))


@pytest.mark.parametrize("data", [b"", b"12345678", (4).to_bytes(8, "little") + b"[1] ", encode_tensors(RAW)[:-1]])
def test_damage_is_named(data: bytes) -> None:
    with pytest.raises(DamagedError, match="it: expected a safetensors file"):
        decode_tensors(data, "it")
