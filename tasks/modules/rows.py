"""Rows that differ by query: a layer sees any number of rows of each sample, one sample after the other.

A graph gives a layer one row for each of its nodes or edges. `rows_of` declares, for the calls in its block, how many
rows of the input are of each sample. Recording, batch norm and projections read it. A sum over the rows of a query does
not change when rows of zeros are added, so that ragged rows are computed as padded ones.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from torch import Tensor

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_COUNTS: ContextVar[Tensor | None] = ContextVar("counts", default=None)


@dataclass(frozen=True, eq=False)
class Rows:
    """The inputs of a linear layer, where a query has any number of rows.

    Parameters
    ----------
    values : (R, features) float, the rows of the first query, then those of the second, and so on
    offsets : (Q + 1,) integer, query q has the rows offsets[q] to offsets[q + 1]

    Raises
    ------
    TypeError : not tensors
    ValueError : offsets that do not begin at 0, fall, or do not end at R
    """

    values: Tensor
    offsets: Tensor
    longest: int = field(default=-1)  # rows of a query after padding; by default those of the longest

    def __post_init__(self) -> None:
        for name, tensor in (("values", self.values), ("offsets", self.offsets)):
            if not isinstance(tensor, Tensor):
                raise TypeError(f"{name}: expected a torch tensor, found {type(tensor).__name__}")
        if self.values.ndim != 2:
            raise ValueError(f"values: expected rows (R, features), found shape {tuple(self.values.shape)}")
        offsets = self.offsets
        if offsets.ndim != 1 or not len(offsets) or offsets.is_floating_point() or offsets.dtype == torch.bool:
            raise ValueError(f"offsets: expected integers (Q + 1,), found {offsets.dtype} {tuple(offsets.shape)}")
        offsets = offsets.detach().to("cpu", torch.int64)
        if int(offsets[0]) or int(offsets[-1]) != len(self.values) or bool((offsets.diff() < 0).any()):
            raise ValueError(
                f"offsets: expected numbers that rise from 0 to {len(self.values)}, the number of rows, found "
                f"{int(offsets[0])} to {int(offsets[-1])}{', with a fall' if bool((offsets.diff() < 0).any()) else ''}"
            )
        object.__setattr__(self, "offsets", offsets)
        if self.longest < 0:
            object.__setattr__(self, "longest", int(offsets.diff().max()) if len(offsets) > 1 else 0)

    def __len__(self) -> int:
        """Return the number of queries."""
        return len(self.offsets) - 1

    def __getitem__(self, picked: slice | Tensor) -> "Rows":
        """Return some queries, which keep the padding."""
        numbers = torch.arange(len(self))[picked.cpu() if isinstance(picked, Tensor) else picked]
        counts = self.counts[numbers]
        offsets = offsets_of(counts)
        within = torch.arange(int(offsets[-1])) - offsets[:-1].repeat_interleave(counts)
        chosen = self.offsets[:-1][numbers].repeat_interleave(counts) + within
        return Rows(self.values[chosen.to(self.values.device)], offsets, self.longest)

    @property
    def counts(self) -> Tensor:
        """The number of rows of each query (Q,)."""
        return self.offsets.diff()

    @property
    def shape(self) -> torch.Size:
        """The shape after padding, (Q, longest, features)."""
        return torch.Size((len(self), self.longest, self.values.shape[1]))

    @property
    def ndim(self) -> int:
        """The number of axes after padding."""
        return 3

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the rows."""
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        """The device of the rows."""
        return self.values.device

    @property
    def nbytes(self) -> int:
        """The bytes of the rows."""
        return self.values.nbytes

    def with_values(self, values: Tensor) -> "Rows":
        """Return other rows (R, ...) of the same queries."""
        return Rows(values, self.offsets, self.longest)

    def trimmed(self) -> "Rows":
        """Return the same rows with as little padding as they need."""
        return Rows(self.values, self.offsets)

    def there(self) -> Tensor:
        """Return whether a row is a query's own and not padding, (Q, longest)."""
        found: Tensor = torch.arange(self.longest) < self.counts[:, None]
        return found.to(self.values.device)

    def padded(self) -> Tensor:
        """Return the rows with zeros after those of each query, (Q, longest, features)."""
        found = self.values.new_zeros(self.shape)
        found[self.there()] = self.values
        return found


Inputs = Tensor | Rows  # of a layer: (Q, ...), or ragged rows


def values_of(inputs: Inputs) -> Tensor:
    """Return the tensor of a layer's inputs: ragged rows (R, features) one after the other."""
    return inputs.values if isinstance(inputs, Rows) else inputs


def with_values(inputs: Inputs, values: Tensor) -> Inputs:
    """Return inputs with other values, such as those in another dtype."""
    return inputs.with_values(values) if isinstance(inputs, Rows) else values


def padded(inputs: Inputs) -> Tensor:
    """Return a layer's inputs with an axis of queries, (Q, ...); ragged rows get zeros."""
    return inputs.padded() if isinstance(inputs, Rows) else inputs


def by_sample(values: Tensor, counts: Tensor | None) -> Tensor:
    """Return rows with an axis of samples, (n, longest, ...) with zeros after each; as they are without counts."""
    return values if counts is None else Rows(values, offsets_of(counts)).padded()


def offsets_of(counts: Tensor) -> Tensor:
    """Return the first row of each sample and the number of all rows, (n + 1,), on the CPU."""
    return torch.cat([torch.zeros(1, dtype=torch.int64), counts.detach().to("cpu", torch.int64).cumsum(0)])


@contextmanager
def rows_of(counts: Tensor) -> Iterator[None]:
    """Declare for the modules called in the block that their inputs have so many rows of each sample.

    Parameters
    ----------
    counts : (n,) integer, rows of each sample of the batch in order

    Raises
    ------
    ValueError : not such a tensor, or a negative count
    """
    if not isinstance(counts, Tensor) or counts.ndim != 1 or counts.dtype not in INTEGERS:
        found = f"{counts.dtype} {tuple(counts.shape)}" if isinstance(counts, Tensor) else type(counts).__name__
        raise ValueError(f"rows_of: expected a tensor of integers (n,), the rows of each sample, found {found}")
    rows = counts.detach().to("cpu", torch.int64)
    if bool((rows < 0).any()):
        raise ValueError(f"rows_of: expected counts of at least 0, found {int(rows.min())}")
    token = _COUNTS.set(rows)
    try:
        yield
    finally:
        _COUNTS.reset(token)


def declared_counts(values: Tensor) -> Tensor | None:
    """Return the number of rows of each sample (n,) in the input of the present call; None where it has one row each.

    Raises
    ------
    ValueError : the input has another number of rows than declared
    """
    counts = _COUNTS.get()
    if counts is None:
        return None
    if values.ndim < 2 or len(values) != int(counts.sum()):
        raise ValueError(
            f"rows_of: expected an input with {int(counts.sum())} rows, as declared, found shape {tuple(values.shape)}"
        )
    return counts


def declared(values: Tensor) -> Inputs:
    """Return the input of the present call, as ragged rows where the network declared them."""
    counts = declared_counts(values)
    return values if counts is None else Rows(values, offsets_of(counts))
