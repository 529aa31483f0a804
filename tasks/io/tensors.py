"""Named tensors as safetensors bytes, and back."""

from collections.abc import Mapping

from safetensors.torch import load, save
from torch import Tensor


def pack_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """Return `tensors`, on whatever device, as one safetensors file: the same tensors, the same bytes."""
    return bytes(save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}))


def unpack_tensors(data: bytes) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, on the CPU."""
    return dict(load(data))
