"""Factors in 16 bits: the inputs and output gradients of a step as halves of two scales, compressed."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from storage.checksums import Bytes
from storage.updates.planes import pack_planes, unpack_planes

HEAD = 16  # bytes before the halves: two scales
TOP = 15  # the largest half is below 2^15
# Rounding that is stated of an update from halves. A step whose sampled rows round by more than a half of it is kept in
# full; the rest is for what momentum adds up.
HALVED = 2e-3
# Bytes of packed halves over bytes of halves. Measured on VGG-16: .39 in linear layers, with zeros from ReLUs and of
# ghosts in both factors, to .75 in convolutions below batch norm.
PACKED = 0.7


def halves_bytes(numbers: int) -> int:
    """Return about the bytes of a step's factors."""
    return math.ceil(2 * PACKED * numbers)


def halved(parts: Sequence[Tensor]) -> tuple[float, list[Tensor]]:
    """Return the scale of tensors, a power of two, and the tensors over it as halves, on the CPU."""
    most = max((float(part.abs().max()) for part in parts if part.numel()), default=0.0)
    exponent = math.frexp(most)[1] - TOP if most and math.isfinite(most) else 0
    scale = math.ldexp(1.0, exponent)
    return scale, [(part / scale).half().cpu() for part in parts]


def pack_halves(inputs: tuple[float, list[Tensor]], gradients: tuple[float, list[Tensor]]) -> Tensor:
    """Return the record (bytes,) of factors from `halved`."""
    flat = torch.cat([part.reshape(-1) for part in (*inputs[1], *gradients[1])])
    packed = pack_planes(flat.view(torch.int16).numpy().view(np.uint16))
    head = np.array([inputs[0], gradients[0]], np.float64).view(np.uint8)
    return torch.from_numpy(np.concatenate([head, packed]))


def unpack_halves(data: Bytes, counts: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """Return the numbers of a record, inputs and gradients one after the other (sum of counts,)."""
    scales = data[:HEAD].copy().view(np.float64)
    halves = torch.from_numpy(unpack_planes(data[HEAD:], sum(counts)).view(np.int16)).view(torch.float16).to(dtype)
    halves[: counts[0]] *= float(scales[0])
    halves[counts[0] :] *= float(scales[1])
    return halves
