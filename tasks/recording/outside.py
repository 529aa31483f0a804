"""What changes weights outside the optimiser's step, as a clamp after it does, while a training is repeated."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Part = tuple[str, str]  # a layer, and its weight or bias


@dataclass
class _Seen:
    """A tensor when it was last looked at: what torch counts, the sums of its bits by row, and a copy if any."""

    count: tuple[int, int]
    sums: Tensor
    values: Tensor | None


class OutsideWatch:
    """Watches weights, to find changes other than the optimiser's.

    Torch counts most changes. Others, as those of `weight.data`, change sums of the bits of each row.

    Parameters
    ----------
    tensors : return the live ones
    copies : whether changes are measured, which takes a copy of all weights; else they are only noticed
    """

    def __init__(self, tensors: Mapping[Part, Callable[[], Tensor]], *, copies: bool) -> None:
        self._tensors, self.copies = tensors, copies
        self.changed = False  # whether a row had such a change
        self._seen: dict[Part, _Seen] = {}
        self._found: dict[Part, Tensor] = {}

    def begin(self) -> None:
        """Note that a row begins."""
        self._found = {}
        if not self._seen:
            self.take()

    @torch.no_grad()
    def take(self) -> None:
        """Take the present weights for those that the optimiser's step made."""
        for part, live in self._tensors.items():
            values, last = live().detach(), self._seen.get(part)
            copy = None if last is None else last.values
            if self.copies:
                copy = values.clone() if copy is None else copy.copy_(values)
            self._seen[part] = _Seen(_count(values), _sums(values), copy)

    @torch.no_grad()
    def look(self) -> None:
        """Add the changes since the last look, or since the weights were taken."""
        for part, last in self._seen.items():
            values = self._tensors[part]().detach()
            sums = _sums(values)
            if last.count == _count(values) and torch.equal(last.sums, sums):
                continue
            if last.values is None:
                self.changed = True
            elif not torch.equal(_bits(last.values), _bits(values)):
                self.changed = True
                wide = torch.promote_types(values.dtype, torch.float32)
                change = values.to(wide) - last.values.to(wide)
                self._found[part] = self._found[part] + change if part in self._found else change
                last.values.copy_(values)
            last.count, last.sums = _count(values), sums

    def of(self, layer: str) -> tuple[Tensor | None, Tensor | None] | None:
        """Return the sum of the changes of weight and bias in the row outside the optimiser's step, None for none."""
        weight, bias = (self._found.get((layer, part)) for part in ("weight", "bias"))
        return None if weight is None and bias is None else (weight, bias)


def _count(values: Tensor) -> tuple[int, int]:
    """Return what changes where torch changes a tensor in place, or where another takes its place."""
    return values._version, values.data_ptr()


def _sums(values: Tensor) -> Tensor:
    """Return the sums of the bits of each row (rows,); of a vector, as a bias, the bits."""
    bits = _bits(values)
    return bits.sum(dim=tuple(range(1, bits.ndim)), dtype=bits.dtype) if bits.ndim > 1 else bits.clone()


def _bits(values: Tensor) -> Tensor:
    """Return the bits of values as integers, so that NaN is equal to itself."""
    return values.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[values.element_size()])
