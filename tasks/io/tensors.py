"""Conversion between named tensors and safetensors bytes."""

from collections.abc import Mapping

from safetensors.torch import load, save
from torch import Tensor


def pack_tensors(tensors: Mapping[str, Tensor], texts: Mapping[str, str] | None = None) -> bytes:
    """Return tensors of any device as one safetensors file; equal tensors and texts give equal bytes."""
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}  # not shared
    return bytes(save(plain, dict(texts) if texts else None))


def unpack_tensors(data: bytes) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, on the CPU."""
    return dict(load(data))
