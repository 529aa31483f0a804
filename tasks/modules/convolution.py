"""Convolutions: each output position sees a patch of the input, which is its row."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.modules.kind import OfMaps, Use

CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
PADDING = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}


class Convolution(OfMaps):
    """`nn.Conv1d`, `nn.Conv2d` and `nn.Conv3d`, weight (out, in / groups, *kernel)."""

    forward = ("forward", "_conv_forward")
    parameters = ("weight", "bias")
    copies = False

    @property
    def own(self) -> "Convolution":
        """Torch's convolution."""
        return self

    def of_unit(self, use: Use, weight: Tensor) -> Tensor:
        """Return the kernels of an output channel."""
        assert use.unit is not None
        return weight[use.unit]

    def sizes(self, use: Use) -> tuple[int, int]:
        """Return input and output channels."""
        return use.shape[1] * use.groups, use.shape[0]

    def rows(self, use: Use, inputs: Tensor) -> Tensor:
        """Return what each output position sees, (Q, g, n, L)."""
        seen = own_channels(use, inputs, self.sizes(use))
        return patches(use, seen, _padded(use, seen), numbers(use.module.stride))

    def matrices(self, use: Use, weights: Tensor) -> Tensor:
        """Return weights (T, out, in / groups, *kernel) as (T, g, o, in / groups, positions), a view."""
        outputs, inputs, *kernel = use.shape
        return weights.reshape(len(weights), use.groups, outputs // use.groups, inputs, prod(kernel))

    def prepare(self, use: Use, inputs: Tensor) -> Tensor:
        """Return inputs padded, unless torch's convolution pads them with zeros."""
        seen = own_channels(use, inputs, self.sizes(use))
        return seen if _zeros(use.module) else _padded(use, seen)

    def apply(self, use: Use, prepared: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return what a convolution with a weight (*shape) and bias (out,) makes of prepared inputs, (Q, o L)."""
        groups, d = use.groups, len(use.shape) - 2
        if use.unit is not None:
            one = slice(use.unit, use.unit + 1)
            weight, bias, groups = weight[one], None if bias is None else bias[one], 1
        return CONVOLUTIONS[d](prepared, weight, bias, *_steps(use), groups).flatten(1)


def weight_gradient(use: Use, prepared: Tensor, outputs: Tensor, groups: int) -> Tensor:
    """Return the gradient by the weight of a convolution of prepared inputs, (c, in / groups, *kernel).

    Parameters
    ----------
    prepared : (B, channels, ...) as `Convolution.prepare` makes them
    outputs : (B, c, ...) gradients of the outputs
    groups : of this convolution, whose channels need not be those of the module
    """
    stride, padding, dilation = _steps(use)
    weight = outputs.new_empty(1).expand(outputs.shape[1], *use.shape[1:])
    wanted, none = (False, True, False), [0] * len(stride)
    found: Tensor = torch.ops.aten.convolution_backward(
        outputs, prepared, weight, None, stride, padding, dilation, False, none, groups, wanted
    )[1]
    return found


def own_channels(use: Use, inputs: Tensor, sizes: tuple[int, int]) -> Tensor:
    """Return the input channels of the unit's group; all without a unit."""
    if use.unit is None:
        return inputs
    width, group = sizes[0] // use.groups, use.unit // (sizes[1] // use.groups)
    return inputs[:, group * width : (group + 1) * width]


def patches(use: Use, inputs: Tensor, padded: Tensor, strides: Sequence[int]) -> Tensor:
    """Return the patches (Q, g, n, L) of `padded` inputs (Q, channels, ...)."""
    groups = use.groups if use.unit is None else 1
    kernel, dilation = use.shape[2:], numbers(use.module.dilation)
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
    return ordered.reshape(len(inputs), groups, inputs.shape[1] // groups * prod(kernel), prod(positions))


def numbers(value: object) -> tuple[int, ...]:
    """Return a module's tuple of settings."""
    assert isinstance(value, tuple), value
    return tuple(int(number) for number in value)


def _steps(use: Use) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return stride, padding and dilation of a convolution of prepared inputs."""
    d = len(use.shape) - 2
    padding = _amounts(use.module, d) if _zeros(use.module) else (0,) * d
    return numbers(use.module.stride), padding, numbers(use.module.dilation)


def _zeros(module: nn.Module) -> bool:
    """Say whether torch's convolution pads by itself; it warns and copies where `same` is uneven."""
    return module.padding_mode == "zeros" and module.padding != "same"


def _amounts(module: nn.Module, d: int) -> tuple[int, ...]:
    """Return the positions added on either side of each axis."""
    return (0,) * d if module.padding == "valid" else numbers(module.padding)


def _padded(use: Use, inputs: Tensor) -> Tensor:
    """Return the inputs of a convolution with their padding."""
    sides: list[tuple[int, int]] = []
    for axis, (size, step) in enumerate(zip(use.shape[2:], numbers(use.module.dilation), strict=True)):
        if use.module.padding == "same":  # an odd total pads one more behind, as torch does
            total = step * (size - 1)
            sides.append((total // 2, total - total // 2))
        else:
            amount = _amounts(use.module, len(use.shape) - 2)[axis]
            sides.append((amount, amount))
    mode = PADDING[str(use.module.padding_mode)]
    amounts = [amount for pair in reversed(sides) for amount in pair]
    return functional.pad(inputs, amounts, mode=mode) if any(amounts) else inputs
