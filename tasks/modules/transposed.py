"""Transposed convolutions: a plain convolution of the input spread by its stride, with the kernel turned round."""

from math import prod

from torch import Tensor
from torch.nn import functional

from tasks.modules.convolution import numbers, own_channels, patches
from tasks.modules.kind import OfMaps, Use

CONVOLUTIONS = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}


class TransposedConvolution(OfMaps):
    """`nn.ConvTranspose1d`, `nn.ConvTranspose2d` and `nn.ConvTranspose3d`, weight (in, out / groups, *kernel)."""

    forward = ("forward",)
    parameters = ("weight", "bias")
    copies = True

    @property
    def own(self) -> "TransposedConvolution":
        """Torch's transposed convolution."""
        return self

    def of_unit(self, use: Use, weight: Tensor) -> Tensor:
        """Return the kernels of an output channel."""
        assert use.unit is not None
        n_inputs, n_outputs = (size // use.groups for size in self.sizes(use))
        group, column = divmod(use.unit, n_outputs)
        return weight[group * n_inputs : (group + 1) * n_inputs, column]

    def sizes(self, use: Use) -> tuple[int, int]:
        """Return input and output channels."""
        return use.shape[0], use.shape[1] * use.groups

    def rows(self, use: Use, inputs: Tensor) -> Tensor:
        """Return what each output position sees, (Q, g, n, L)."""
        seen = own_channels(use, inputs, self.sizes(use))
        return patches(use, seen, _spread(use, seen), [1] * (len(use.shape) - 2))

    def matrices(self, use: Use, weights: Tensor) -> Tensor:
        """Return weights (T, in, out / groups, *kernel) as (T, g, out / groups, in / groups, positions), a copy."""
        n_inputs, outputs, *kernel = use.shape
        turned = weights.flip(tuple(range(3, 3 + len(kernel))))
        split = turned.reshape(len(weights), use.groups, n_inputs // use.groups, outputs, prod(kernel))
        return split.transpose(2, 3)

    def prepare(self, use: Use, inputs: Tensor) -> Tensor:
        """Return the inputs that the unit sees."""
        return own_channels(use, inputs, self.sizes(use))

    def apply(self, use: Use, prepared: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return what the module with a weight (*shape) and bias (out,) makes of prepared inputs, (Q, o L)."""
        groups, module = use.groups, use.module
        if use.unit is not None:
            n_inputs, n_outputs = (size // groups for size in self.sizes(use))
            group, row = divmod(use.unit, n_outputs)
            weight = weight[group * n_inputs : (group + 1) * n_inputs, row : row + 1]
            bias, groups = None if bias is None else bias[use.unit : use.unit + 1], 1
        stride, dilation = numbers(module.stride), numbers(module.dilation)
        padding, extra = numbers(module.padding), numbers(module.output_padding)
        convolve = CONVOLUTIONS[len(use.shape) - 2]
        return convolve(prepared, weight, bias, stride, padding, extra, groups, dilation).flatten(1)


def _spread(use: Use, inputs: Tensor) -> Tensor:
    """Return the inputs spread by the stride and padded, so that the rest is a plain convolution."""
    module = use.module
    strides, padding, dilation = numbers(module.stride), numbers(module.padding), numbers(module.dilation)
    sizes = [(size - 1) * stride + 1 for size, stride in zip(inputs.shape[2:], strides, strict=True)]
    spread = inputs.new_zeros(*inputs.shape[:2], *sizes)
    places: tuple[slice, ...] = tuple(slice(None, None, stride) for stride in (1, 1, *strides))
    spread[places] = inputs
    amounts: list[int] = []
    extra = numbers(module.output_padding)
    for axis in reversed(range(len(sizes))):
        edge = dilation[axis] * (use.shape[2 + axis] - 1) - padding[axis]
        amounts += [edge, edge + extra[axis]]
    return functional.pad(spread, amounts)  # a negative amount crops
