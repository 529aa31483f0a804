"""Covered modules as matrix products: preactivation = weight matrix @ patches, group by group.

`rows` gives the patches F (Q, g, n, L) of a layer's inputs and `matrices` the weights D (T, g, o, n), so that the
module's output is D F for each group: g groups, o outputs and n inputs (times kernel positions) per group, L output
positions. A bias is one more row of ones in F and one more column in D. `tasks.modules` knows how each kind of module
does this.
"""

from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor, nn

from tasks.modules import ModuleKind, Use, kind_of
from tasks.modules.rows import Inputs, Rows, padded


@dataclass(frozen=True)
class Operation:
    """The operation of a module with a weight of some shape; the module's own weight and bias are not used.

    Attributes
    ----------
    module : a covered module
    shape : shape of the weight, as the module keeps it
    bias : whether a bias counts as part of the weights
    unit : index of one output row or channel, None for all
    """

    module: nn.Module
    shape: tuple[int, ...]
    bias: bool = False
    unit: int | None = None

    @cached_property
    def kind(self) -> ModuleKind:
        """What the module's class says of it."""
        found = kind_of(self.module)
        assert found is not None, self.module
        return found

    @cached_property
    def use(self) -> Use:
        """The module with a weight of that shape, as its kind takes it."""
        return Use(self.module, self.shape, self.unit)

    @property
    def groups(self) -> int:
        """Groups of the whole module."""
        return self.use.groups

    @property
    def n_inputs(self) -> int:
        """Input features or channels of the whole module."""
        return self.kind.sizes(self.use)[0]

    @property
    def n_outputs(self) -> int:
        """Output features or channels of the whole module."""
        return self.kind.sizes(self.use)[1]

    @property
    def copies(self) -> bool:
        """Whether `matrices` has to copy the weights."""
        return self.bias or self.kind.copies or self.unit is not None

    @property
    def convolves(self) -> bool:
        """Whether `convolve` can be used."""
        return self.kind.own is not None

    @property
    def matrix_shape(self) -> tuple[int, int, int]:
        """Return (g, o, n) of the matrices; g and o are 1 for a unit."""
        outputs = self.n_outputs // self.groups
        width = self.n_inputs // self.groups * prod(self.shape[2:]) + self.bias
        return (self.groups, outputs, width) if self.unit is None else (1, 1, width)

    def rows(self, inputs: Inputs) -> Tensor:
        """Return the patches (Q, g, n, L) of inputs (Q, ...); holds them all. Padding of ragged rows sees zeros."""
        found = self.kind.rows(self.use, padded(inputs))
        if self.bias:
            found = torch.cat([found, self.ones(inputs, found)], dim=2)
        return found

    def ones(self, inputs: Inputs, rows: Tensor) -> Tensor:
        """Return what the bias sees next to rows (Q, g, n, L) of inputs: 1, or 0 at padding, (Q, g, 1, L)."""
        ones = torch.ones_like(rows[:, :, :1])
        presence = inputs.there() if isinstance(inputs, Rows) else self.kind.presence(self.use, inputs)
        return ones if presence is None else ones * presence.to(rows.dtype)[:, None, None]

    def matrices(self, weights: Tensor, biases: Tensor | None) -> Tensor:
        """Return the matrices (T, g, o, n) of weights (T, *shape) and biases (T, out); a view where it can be."""
        split = self.kind.matrices(self.use, weights)
        if self.unit is not None:
            group, row = divmod(self.unit, self.n_outputs // self.groups)
            split = split[:, group : group + 1, row : row + 1]
        found = split.reshape(len(weights), *split.shape[1:3], -1)
        if self.bias:
            assert biases is not None
            chosen = biases if self.unit is None else biases[:, self.unit : self.unit + 1]
            found = torch.cat([found, chosen.reshape(*found.shape[:3], 1)], dim=3)
        return found

    def padded(self, inputs: Tensor) -> Tensor:
        """Return a convolution's inputs as `convolve` takes them."""
        assert self.kind.own is not None
        return self.kind.own.prepare(self.use, inputs)

    def convolve(self, padded: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return what a convolution with a weight (*shape) and bias (out,) makes of `padded` inputs, (Q, o L)."""
        assert self.kind.own is not None
        return self.kind.own.apply(self.use, padded, weight, bias)
