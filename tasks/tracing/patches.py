"""Covered modules as matrix products: preactivation = weight matrix @ patches, group by group.

`rows` gives the patches F (Q, g, n, L) of a layer's inputs, and `matrices` the weights D (T, g, o, n). The module's
output is D F for each group. Here g is the number of groups and L that of output positions. A group has o outputs and
n inputs (times kernel positions). A bias is one more row of ones in F and one more column in D.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
TRANSPOSED_CONVOLUTIONS = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}
PADDING = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}


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

    @property
    def groups(self) -> int:
        """Return the number of groups of the whole module."""
        return int(getattr(self.module, "groups", 1))

    @property
    def transposed(self) -> bool:
        """Return whether the weight is kept as (in, out / groups, ...)."""
        return isinstance(self.module, TRANSPOSED)

    @property
    def n_inputs(self) -> int:
        """Return the number of input features or channels of the whole module."""
        return self.shape[0] if self.transposed else self.shape[1] * self.groups

    @property
    def n_outputs(self) -> int:
        """Return the number of output features or channels of the whole module."""
        return self.shape[1] * self.groups if self.transposed else self.shape[0]

    @property
    def copies(self) -> bool:
        """Return whether `matrices` must copy the weights."""
        return self.bias or self.transposed or self.unit is not None

    @property
    def matrix_shape(self) -> tuple[int, int, int]:
        """Return (g, o, n) of the matrices; g and o are 1 for a unit."""
        outputs = self.n_outputs // self.groups
        width = self.n_inputs // self.groups * prod(self.shape[2:]) + self.bias
        return (self.groups, outputs, width) if self.unit is None else (1, 1, width)

    def rows(self, inputs: Tensor) -> Tensor:
        """Return the patches (Q, g, n, L) of inputs (Q, ...); holds all of them."""
        found = self._tokens(inputs) if isinstance(self.module, nn.Linear) else self._patches(inputs)
        if self.bias:
            found = torch.cat([found, torch.ones_like(found[:, :, :1])], dim=2)
        return found

    def matrices(self, weights: Tensor, biases: Tensor | None) -> Tensor:
        """Return the matrices (T, g, o, n) of weights (T, *shape) and biases (T, out); a view where possible."""
        count, groups, tail = len(weights), self.groups, self.shape[2:]
        if self.transposed:
            split = weights.flip(tuple(range(3, 3 + len(tail)))) if tail else weights
            split = split.reshape(count, groups, self.n_inputs // groups, self.shape[1], prod(tail))
            split = split.transpose(2, 3)
        else:
            split = weights.reshape(count, groups, self.shape[0] // groups, self.shape[1], prod(tail))
        if self.unit is not None:
            group, row = divmod(self.unit, self.n_outputs // groups)
            split = split[:, group : group + 1, row : row + 1]
        found = split.reshape(count, *split.shape[1:3], -1)
        if self.bias:
            assert biases is not None
            chosen = biases if self.unit is None else biases[:, self.unit : self.unit + 1]
            found = torch.cat([found, chosen.reshape(*found.shape[:3], 1)], dim=3)
        return found

    def padded(self, inputs: Tensor) -> Tensor:
        """Return a convolution's inputs for `convolve`, padded unless the padding is zeros."""
        own = self._own_channels(inputs)
        return own if self._zeros else self._padded(own, _numbers(self.module.dilation))

    def convolve(self, padded: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the convolution (Q, o L) of `padded` inputs with a weight (*shape) and bias (out,)."""
        groups, d = self.groups, len(self.shape) - 2
        if self.unit is not None:
            group, row = divmod(self.unit, self.n_outputs // groups)
            inputs, one = self.n_inputs // groups, slice(self.unit, self.unit + 1)
            chosen = weight[group * inputs : (group + 1) * inputs, row : row + 1] if self.transposed else weight[one]
            weight, bias, groups = chosen, None if bias is None else bias[one], 1
        stride, dilation = _numbers(self.module.stride), _numbers(self.module.dilation)
        if self.transposed:
            padding, extra = _numbers(self.module.padding), _numbers(self.module.output_padding)
            return TRANSPOSED_CONVOLUTIONS[d](padded, weight, bias, stride, padding, extra, groups, dilation).flatten(1)
        zeros = self._numbers_of_padding() if self._zeros else (0,) * d
        return CONVOLUTIONS[d](padded, weight, bias, stride, zeros, dilation, groups).flatten(1)

    @property
    def _zeros(self) -> bool:
        """Return whether torch's convolution pads by itself; it warns and copies where `same` is uneven."""
        return self.module.padding_mode == "zeros" and self.module.padding != "same"

    def _numbers_of_padding(self) -> tuple[int, ...]:
        """Return the number of positions that padding adds on either side of each axis."""
        valid = self.module.padding == "valid"
        return (0,) * (len(self.shape) - 2) if valid else _numbers(self.module.padding)

    def _own_channels(self, inputs: Tensor) -> Tensor:
        """Return the input channels of the unit's group; all channels without a unit."""
        if self.unit is None:
            return inputs
        width, group = self.n_inputs // self.groups, self.unit // (self.n_outputs // self.groups)
        return inputs[:, group * width : (group + 1) * width]

    def _tokens(self, inputs: Tensor) -> Tensor:
        """Return the rows of a linear layer's input as positions."""
        return inputs.reshape(len(inputs), 1, -1, self.shape[1]).transpose(2, 3)

    def _patches(self, inputs: Tensor) -> Tensor:
        """Return the input values of each output position of a convolution."""
        inputs = self._own_channels(inputs)
        groups, width = (self.groups if self.unit is None else 1), self.n_inputs // self.groups
        kernel, dilation = self.shape[2:], _numbers(self.module.dilation)
        padded = self._stuffed(inputs, dilation) if self.transposed else self._padded(inputs, dilation)
        strides = [1] * len(kernel) if self.transposed else _numbers(self.module.stride)
        spans = [step * (size - 1) + 1 for step, size in zip(dilation, kernel, strict=True)]
        for axis, (span, stride) in enumerate(zip(spans, strides, strict=True)):
            if padded.shape[2 + axis] < span:
                raise ValueError(
                    f"inputs: expected at least the kernel's {tuple(spans)} positions, found "
                    f"{tuple(padded.shape[2:])} with padding, of shape {tuple(inputs.shape)}"
                )
            padded = padded.unfold(2 + axis, span, stride)[..., :: dilation[axis]]
        d = len(kernel)
        positions = padded.shape[2 : 2 + d]
        ordered = padded.permute(0, 1, *range(2 + d, 2 + 2 * d), *range(2, 2 + d))
        return ordered.reshape(len(inputs), groups, width * prod(kernel), prod(positions))

    def _padded(self, inputs: Tensor, dilation: Sequence[int]) -> Tensor:
        """Return the inputs of a convolution with their padding."""
        sides: list[tuple[int, int]] = []
        padding = self.module.padding
        for axis, (size, step) in enumerate(zip(self.shape[2:], dilation, strict=True)):
            if padding == "same":  # an odd total adds one more position at the end, as in torch
                total = step * (size - 1)
                sides.append((total // 2, total - total // 2))
            else:
                amount = self._numbers_of_padding()[axis]
                sides.append((amount, amount))
        mode = PADDING[str(self.module.padding_mode)]
        amounts = [amount for pair in reversed(sides) for amount in pair]
        return functional.pad(inputs, amounts, mode=mode) if any(amounts) else inputs

    def _stuffed(self, inputs: Tensor, dilation: Sequence[int]) -> Tensor:
        """Return the inputs of a transposed convolution, spread by its stride: the rest is a plain convolution."""
        strides, padding = _numbers(self.module.stride), _numbers(self.module.padding)
        sizes = [(size - 1) * stride + 1 for size, stride in zip(inputs.shape[2:], strides, strict=True)]
        spread = inputs.new_zeros(*inputs.shape[:2], *sizes)
        places: tuple[slice, ...] = tuple(slice(None, None, stride) for stride in (1, 1, *strides))
        spread[places] = inputs
        amounts: list[int] = []
        extra = _numbers(self.module.output_padding)
        for axis in reversed(range(len(sizes))):
            edge = dilation[axis] * (self.shape[2 + axis] - 1) - padding[axis]
            amounts += [edge, edge + extra[axis]]
        return functional.pad(spread, amounts)  # a negative amount crops


def _numbers(value: object) -> tuple[int, ...]:
    """Return a module's setting as a tuple of integers."""
    assert isinstance(value, tuple), value
    return tuple(int(number) for number in value)
