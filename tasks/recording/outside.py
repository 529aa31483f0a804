"""What changes weights outside the optimiser's step, as a clamp after it does, while a training is repeated."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

Part = tuple[str, str]  # a layer, and its weight or bias


@dataclass
class _Seen:
    """A tensor when it was last looked at: a mark of it, and a copy if any."""

    mark: Tensor
    values: Tensor | None


class OutsideWatch:
    """Watches weights, to find changes other than the optimiser's.

    Parameters
    ----------
    tensors : return the live ones
    copies : whether changes are measured, which takes a copy of all weights; else they are only noticed, by marks, as
        torch does not count all changes, such as those of `weight.data`
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
            self._seen[part] = _Seen(_mark(values) if copy is None else copy, copy)

    @torch.no_grad()
    def look(self) -> None:
        """Add the changes since the last look, or since the weights were taken."""
        for part, last in self._seen.items():
            values = self._tensors[part]().detach()
            now = _mark(values) if last.values is None else values
            if torch.equal(_bits(last.mark), _bits(now)):
                continue
            self.changed = True
            if last.values is None:
                last.mark = now
            else:
                self.add(*part, _wide(values) - _wide(last.values))
                last.values.copy_(values)

    def add(self, layer: str, part: str, change: Tensor) -> None:
        """Add to the changes of a weight or bias in this row."""
        held = self._found.get((layer, part))
        self._found[layer, part] = change if held is None else held + change

    def of(self, layer: str) -> tuple[Tensor | None, Tensor | None] | None:
        """Return the sum of the changes of weight and bias in the row outside the optimiser's step, None for none."""
        weight, bias = (self._found.get((layer, part)) for part in ("weight", "bias"))
        return None if weight is None and bias is None else (weight, bias)


def _mark(values: Tensor) -> Tensor:
    """Return random combinations of each row (rows,), which changes above rounding change; of a vector its values."""
    if values.ndim < 2:
        return values.clone()
    rows = _wide(values).flatten(1)
    return rows @ _drawn(rows.shape[1], rows.dtype, rows.device)


@lru_cache(maxsize=64)
def _drawn(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return random numbers (count,), always the same."""
    generator = torch.Generator("cpu").manual_seed(0)
    return torch.randn(count, dtype=torch.float64, generator=generator, device="cpu").to(device, dtype)


def _wide(values: Tensor) -> Tensor:
    """Return values in 32 bits at least."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _bits(values: Tensor) -> Tensor:
    """Return the bits of values as integers, so that NaN is equal to itself."""
    return values.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[values.element_size()])
