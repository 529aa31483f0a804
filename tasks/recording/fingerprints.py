"""Fingerprints of a network's weights, without a copy of them: a digest of all bits, and a sample of the values."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from storage.checksums import Bytes
from storage.updates.bits import BITS, Ints, as_floats, weights_digest
from storage.updates.parameters import Layer, Parameter

BLOCK = 2**18  # bytes: of each such block only the sum of its words enters the digest
LINE = 64  # bytes of a sampled run of values
SAMPLED = 2**14  # values of a sample; smaller parameters are sampled whole
MOST = 4 * 2**20  # bytes of a parameter that are read after a step of a training, which waits for it


@dataclass(frozen=True)
class Turn:
    """The part of large parameters that one of several readings reads: every so many blocks, others at each turn.

    Parameters
    ----------
    most : bytes of a parameter that one reading reads, but at least a block
    number : of the reading
    """

    most: int
    number: int

    def of(self, blocks: int) -> slice:
        """Return which of a parameter's blocks are read."""
        turns = self._turns(blocks)
        return slice(self.number % turns, None, turns)

    def leaves(self, parameter: Parameter) -> bool:
        """Return whether a part of a parameter is not read."""
        return self._turns(parameter.nbytes // BLOCK) > 1

    def _turns(self, blocks: int) -> int:
        """Return the number of readings that read all blocks of a parameter."""
        return max(1, min(blocks, math.ceil(blocks * BLOCK / self.most)))


def turn_of(number: int) -> Turn:
    """Return the turn of a reading after a step of a training."""
    return Turn(MOST, number)


@dataclass(frozen=True)
class Fingerprint:
    """The facts about one parameter at a moment.

    Parameters
    ----------
    summary : (n,) the sum of the 64-bit words of each whole block that was read, and the bytes of the rest, as words
    sample : (m,) bit patterns of some values, always the same ones
    version : torch's count of the changes in place, and the address in memory
    turn : which blocks were read, None for all
    """

    summary: NDArray[np.uint32]
    sample: Ints
    version: tuple[int, int]
    turn: Turn | None = None


Changes = NDArray[np.float64]
Fingerprints = Mapping[str, Fingerprint]  # by the parameter's name


@dataclass(frozen=True)
class _View:
    """The bits of a tensor: views of its memory on the CPU, copies elsewhere.

    Parameters
    ----------
    key : what differs where another tensor, or another memory, takes the place of the tensor
    blocks : (n, words) the 64-bit words of its whole blocks, in the order of its values; None without one
    rest : (b,) the bytes after them; a tensor where it is not on the CPU
    picked : (k, values of a line) or (m,) the bit patterns of the sampled values
    """

    key: tuple[object, ...]
    blocks: Tensor | None
    rest: Bytes | Tensor
    picked: Ints

    def summary(self, turn: Turn | None) -> NDArray[np.uint32]:
        """Return the sums of the blocks of a turn, and the rest, padded with zeros to whole words."""
        rest = self.rest.cpu().numpy() if isinstance(self.rest, Tensor) else self.rest
        if rest.size % 4:
            words = np.zeros(rest.size // 4 + 1, np.uint32)
            words.view(np.uint8)[: rest.size] = rest
        else:
            words = rest.view(np.uint32).copy()
        if self.blocks is None:
            return words
        chosen = None if turn is None else turn.of(len(self.blocks))
        read = self.blocks if chosen is None or chosen.step == 1 else self.blocks[chosen]
        return np.concatenate([read.sum(1).cpu().numpy().view(np.uint32), words])

    def fingerprint(self, version: tuple[int, int], turn: Turn | None) -> "Fingerprint":
        """Return the facts of this moment."""
        summary = self.summary(turn)
        if self.blocks is None and self.picked.ndim == 1:  # the summary has every value
            return Fingerprint(summary, summary.view(self.picked.dtype)[: self.picked.size], version, turn)
        return Fingerprint(summary, self.picked.flatten(), version, turn)


class Watched:
    """Parameters of a network whose bits are read in place: a reading reads every weight once, or a turn of them.

    Memory that a parameter no longer has is held until the next reading.

    Parameters
    ----------
    parameters : names, types and shapes
    places : module and attribute of each
    """

    def __init__(self, parameters: Sequence[Parameter], places: Sequence[tuple[nn.Module, str]]) -> None:
        self._each = list(zip(parameters, places, strict=True))
        self._views: dict[str, _View] = {}

    @torch.no_grad()
    def fingerprints(self, turn: Turn | None = None) -> Fingerprints:
        """Return the fingerprints of the present parameters, of all their blocks or those of a turn."""
        found = {}
        for parameter, (module, part) in self._each:
            value = getattr(module, part)
            found[parameter.name] = self._view(parameter, value).fingerprint(_version(value), turn)
        return found

    def touched(self, before: Fingerprints) -> bool:
        """Return whether torch saw one of the parameters change, or another take its place."""
        return any(_version(getattr(module, part)) != before[p.name].version for p, (module, part) in self._each)

    def versions(self, names: Collection[str]) -> dict[str, tuple[int, int]]:
        """Return the versions of some of the present parameters, see `Fingerprint`."""
        return {p.name: _version(getattr(module, part)) for p, (module, part) in self._each if p.name in names}

    @torch.no_grad()
    def changed(self, before: Fingerprints, *, strict: bool) -> str | None:
        """Return the name of the first parameter with other bits than before, None without one.

        Parameters
        ----------
        strict : whether all bits are compared. Otherwise only the sample is, of parameters that torch did not see
            change in place; this misses a change through `.data` of a few values in a large parameter. Of a parameter
            whose blocks were read in part, no others are compared; strictly, a change that torch saw counts then too.
        """
        for parameter, (module, part) in self._each:
            value, last = getattr(module, part), before[parameter.name]
            if not _fits(parameter, value):
                return parameter.name
            view = self._view(parameter, value)
            if not (last.sample.reshape(view.picked.shape) == view.picked).all():
                return parameter.name
            seen = _version(value) != last.version
            if strict and seen and last.turn is not None and last.turn.leaves(parameter):
                return parameter.name
            if (strict or seen) and not np.array_equal(view.summary(last.turn), last.summary):
                return parameter.name
        return None

    def reshaped(self) -> tuple[Parameter, Tensor] | None:
        """Return the first parameter with another shape or type than recorded, and its present value, else None."""
        pairs = ((parameter, getattr(module, part)) for parameter, (module, part) in self._each)
        return next((pair for pair in pairs if not _fits(*pair)), None)

    def _view(self, parameter: Parameter, value: Tensor) -> _View:
        """Return the bits of a parameter; views are kept, since to make them takes longer than to read through them."""
        key = value.data_ptr(), value.shape, value.stride(), value.dtype, value.device
        known = self._views.pop(parameter.name, None)
        if known is None or known.key != key:
            known, copied = _view_of(value, parameter, key)
            if copied:
                return known
        self._views[parameter.name] = known
        return known


def layer_digest(layer: Layer, found: Fingerprints) -> int:
    """Return the digest (64 bits) of a layer's parameters: `weights_digest` of their summaries.

    For parameters below BLOCK bytes this is the digest of their values.
    """
    summaries = [found[name].summary for name in layer.parameters]  # of whole words, so that one after the other is one
    return weights_digest([np.concatenate(summaries).view(np.int32)])


def sampled_changes(parameter: Parameter, samples: Sequence[Ints]) -> Changes:
    """Return the updates (k, m) of the sampled values between k + 1 samples (m,), in order."""
    values = [as_floats(sample, parameter.dtype) for sample in samples]
    found: Changes = np.empty((len(values) - 1, len(values[0])))
    for (before, after), change in zip(pairwise(values), found, strict=True):
        np.subtract(after, before, out=change, dtype=np.float64)  # in half the time of torch's
    return found


def estimated_norms(parameter: Parameter, changes: Changes) -> list[float]:
    """Return the Euclidean norms of updates, from their sampled values (k, m); exact where the sample is whole."""
    norms = torch.linalg.vector_norm(torch.from_numpy(changes), dim=1)  # NumPy's threads would wait at full load
    found: list[float] = (norms * math.sqrt(parameter.size / max(1, changes.shape[1]))).tolist()
    return found


def _view_of(value: Tensor, parameter: Parameter, key: tuple[object, ...]) -> tuple[_View, bool]:
    """Return the bits of a tensor, and whether a part of them is a copy."""
    copied = value.device.type != "cpu" or not value.is_contiguous()
    data = value.detach().contiguous().view(-1).view(torch.uint8)
    whole = data.numel() // BLOCK * BLOCK
    blocks = data[:whole]
    if whole and blocks.storage_offset() % 8:  # an odd place in memory that another tensor owns
        blocks, copied = blocks.clone(), True
    words = blocks.view(torch.int64).view(-1, BLOCK // 8) if whole else None
    rest = data[whole:].numpy() if value.device.type == "cpu" else data[whole:]
    return _View(key, words, rest, _picked(data, parameter)), copied


def _picked(data: Tensor, parameter: Parameter) -> Ints:
    """Return the bit patterns of the sampled values, (k, values of a line) or (m,); on the CPU a view."""
    bits = np.dtype(BITS[parameter.dtype])
    lines, row = data.numel() // LINE, math.prod(parameter.shape[1:]) * bits.itemsize
    # A step without a factor in common with the lines of a row meets all columns.
    step = lines * LINE // bits.itemsize // SAMPLED | 1
    while step > 1 and math.gcd(step, row // math.gcd(LINE, row)) > 1:
        step += 2
    picked: Bytes = (data if step == 1 else data[: lines * LINE].view(lines, LINE)[::step]).cpu().numpy()
    return picked.view(bits)


def _fits(parameter: Parameter, value: Tensor) -> bool:
    """Return whether a value has the shape and the type of a parameter."""
    return value.shape == parameter.shape and value.dtype == getattr(torch, parameter.dtype)


def _version(value: Tensor) -> tuple[int, int]:
    """Return what changes where torch changes a tensor in place, or where another tensor takes its place."""
    return value._version, value.data_ptr()
