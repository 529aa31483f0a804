"""Fingerprints of a network's weights, without a copy of them: a digest of all bits, and a sample of the values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from storage.updates.bits import BITS, Bytes, Ints, as_floats, weights_digests
from storage.updates.parameters import Layer, Parameter

BLOCK = 2**18  # bytes: of each such block only the sum of its words enters the digest
LINE = 64  # bytes of a sampled run of values
SAMPLED = 2**14  # values of a sample; smaller parameters are sampled whole


@dataclass(frozen=True)
class Fingerprint:
    """The facts about one parameter at a moment.

    Parameters
    ----------
    summary : (n,) the sum of the 64-bit words of each whole block, and the bytes of the rest, as words
    sample : (m,) bit patterns of some values, always the same ones
    version : torch's count of the changes in place, and the address in memory
    """

    summary: NDArray[np.uint32]
    sample: Ints
    version: tuple[int, int]


Change = NDArray[np.float64]
Fingerprints = Mapping[str, Fingerprint]  # by the parameter's name


@torch.no_grad()
def fingerprints_of(parameters: Sequence[Parameter], places: Sequence[tuple[nn.Module, str]]) -> Fingerprints:
    """Return the fingerprints of the present parameters. Reads every weight once."""
    found = {}
    for parameter, (module, part) in zip(parameters, places, strict=True):
        value = getattr(module, part)
        data = _bytes(value)
        found[parameter.name] = Fingerprint(
            _summary(data), _picked(data, parameter).reshape(-1).copy(), _version(value)
        )
    return found


@torch.no_grad()
def changed_parameter(
    before: Fingerprints, parameters: Sequence[Parameter], places: Sequence[tuple[nn.Module, str]], *, strict: bool
) -> str | None:
    """Return the name of the first parameter with other bits than before, None without one.

    Parameters
    ----------
    strict : whether all bits are compared. Otherwise only the sample is, of parameters that torch did not see change
        in place; this misses a change through `.data` of a few values in a large parameter.
    """
    for parameter, (module, part) in zip(parameters, places, strict=True):
        value, last = getattr(module, part), before[parameter.name]
        data = _bytes(value)
        picked = _picked(data, parameter)
        if not np.array_equal(picked, last.sample.reshape(picked.shape)):
            return parameter.name
        suspect = strict or _version(value) != last.version
        if suspect and not np.array_equal(_summary(data), last.summary):
            return parameter.name
    return None


def layer_digest(layer: Layer, found: Fingerprints) -> int:
    """Return the digest (64 bits) of a layer's parameters: `weights_digests` of their summaries.

    For parameters below BLOCK bytes this is the digest of their values.
    """
    return weights_digests(found[name].summary.view(np.int32)[None] for name in layer.parameters)[0]


def sampled_change(parameter: Parameter, after: Fingerprints, before: Fingerprints) -> Change:
    """Return the update of the sampled values (m,)."""
    new, old = (as_floats(f[parameter.name].sample, parameter.dtype) for f in (after, before))
    change: Change = np.subtract(new, old, dtype=np.float64)
    return change


def estimated_norm(parameter: Parameter, change: Change) -> float:
    """Return the Euclidean norm of an update, from that of its sampled values; exact where the sample is whole."""
    return float(np.sqrt(np.dot(change, change) * parameter.size / max(1, len(change))))


def _bytes(value: Tensor) -> Tensor:
    """Return the bytes of a tensor in the order of its values, without a copy where they are contiguous."""
    return value.detach().contiguous().view(-1).view(torch.uint8)


def _summary(data: Tensor) -> NDArray[np.uint32]:
    """Return the sums of the blocks, and the rest, padded with zeros to whole words."""
    whole = data.numel() // BLOCK * BLOCK
    rest = data[whole:].cpu().numpy()
    if not whole and not rest.size % 4:
        return rest.view(np.uint32).copy()
    padded = np.zeros(-(-rest.size // 4) * 4, np.uint8)
    padded[: rest.size] = rest
    words: NDArray[np.uint32] = padded.view(np.uint32)
    if not whole:
        return words
    blocks = data[:whole]
    if blocks.storage_offset() % 8:  # an odd place in memory that another tensor owns
        blocks = blocks.clone()
    sums = blocks.view(torch.int64).view(-1, BLOCK // 8).sum(1)
    return np.concatenate([sums.cpu().numpy().view(np.uint32), words])


def _picked(data: Tensor, parameter: Parameter) -> Ints:
    """Return the bit patterns of the sampled values, (k, values of a line) or (m,); on the CPU a view."""
    bits = np.dtype(BITS[parameter.dtype])
    lines = data.numel() // LINE
    # An odd step meets every column of a matrix with rows of a power of two.
    step = lines * LINE // bits.itemsize // SAMPLED | 1
    picked: Bytes = (data if step == 1 else data[: lines * LINE].view(lines, LINE)[::step]).cpu().numpy()
    return picked.view(bits)


def _version(value: Tensor) -> tuple[int, int]:
    """Return what changes where torch changes a tensor in place, or where another tensor takes its place."""
    return value._version, value.data_ptr()
