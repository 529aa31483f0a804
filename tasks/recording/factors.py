"""The factors of a layer's gradient: the layer's inputs and the gradients of its outputs, of one step.

The gradient of the weight is the sum over samples b and output positions l of g_{bl} x_{bl}^T, where x_{bl} is what
the position sees of the input. So the gradient's image under any query needs two small products.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from storage.documents import Document
from tasks.modules import ModuleKind, Use, kind_of
from tasks.modules.convolution import weight_gradient
from tasks.modules.rows import declared_counts

CLASSES: dict[str, type[nn.Module]] = {
    "Linear": nn.Linear,
    "Conv1d": nn.Conv1d,
    "Conv2d": nn.Conv2d,
    "Conv3d": nn.Conv3d,
}
MANY = 128  # positions from which a gradient by sample is fastest as that of one convolution with a group per sample
SETTINGS = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")  # of a convolution


def factorable(module: nn.Module) -> bool:
    """Return whether the factors of a module's gradient can be kept: linear layers and convolutions."""
    if kind_of(module) is None or isinstance(module, _ConvTransposeNd):
        return False
    return isinstance(module, tuple(CLASSES.values()))


def describe_module(module: nn.Module) -> Document:
    """Return the settings of a module whose factors can be kept, as JSON for `build_module`."""
    if isinstance(module, nn.Linear):
        return {"kind": "Linear", "arguments": [module.in_features, module.out_features], "settings": {}}
    assert isinstance(module, _ConvNd)
    settings = {name: getattr(module, name) for name in SETTINGS}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
    kind = next(name for name, found in CLASSES.items() if isinstance(module, found))
    return {"kind": kind, "arguments": [module.in_channels, module.out_channels], "settings": plain}


def build_module(document: Document) -> nn.Module:
    """Return a module with such settings, without values."""
    settings = {name: tuple(v) if isinstance(v, list) else v for name, v in document["settings"].items()}
    return CLASSES[document["kind"]](*document["arguments"], bias=False, device="meta", **settings)


def sample_numbers(model: nn.Module, layers: Mapping[str, nn.Module], example: Tensor) -> dict[str, int]:
    """Return by layer the numbers in the inputs and outputs of one sample; layers without a call are left out.

    Parameters
    ----------
    example : (n, ...) inputs of the network; where a layer sees any number of rows of each, the most count. The network
        runs in evaluation mode and goes back to its mode
    """
    found: dict[str, int] = {}
    training = model.training
    with ExitStack() as hooks, torch.no_grad():
        for name, module in layers.items():

            def note(_: nn.Module, given: tuple[Tensor, ...], made: Tensor, name: str = name) -> None:
                if given and isinstance(given[0], Tensor) and isinstance(made, Tensor):
                    counts, numbers = declared_counts(given[0]), given[0].numel() + made.numel()
                    if counts is None:
                        each = numbers // len(example)
                    else:
                        each = numbers // max(1, len(given[0])) * int(counts.max())
                    found[name] = found.get(name, 0) + each

            if factorable(module):
                hooks.callback(module.register_forward_hook(note).remove)
        model.eval()(example)
        model.train(training)
    return found


def sample_axes(module: nn.Module) -> int:
    """Return the smallest number of axes of an input with an axis of samples."""
    if isinstance(module, nn.Linear):
        return 2
    assert isinstance(module, _ConvNd)
    return module.weight.ndim


@dataclass(frozen=True)
class Factors:
    """The factors of one step.

    Parameters
    ----------
    module : gives the operation
    shape : of the weight
    inputs : (B, ...) as the layer took them; B samples
    gradients : (B, ...) of the layer's outputs, in their shape
    """

    module: nn.Module
    shape: tuple[int, ...]
    inputs: Tensor
    gradients: Tensor

    @property
    def samples(self) -> int:
        """The number of samples, B."""
        return len(self.inputs)

    @cached_property
    def sample_rows(self) -> Tensor:
        """What each output position of a sample sees, (B, g, n, L)."""
        return self._kind.rows(self._use, self.inputs)

    @cached_property
    def sample_outputs(self) -> Tensor:
        """The gradients of the outputs of a sample, (B, g, o, L)."""
        groups, outputs = self._use.groups, self._kind.sizes(self._use)[1]
        if isinstance(self.module, nn.Linear):
            split = self.gradients.reshape(self.samples, prod(self.gradients.shape[1:-1]), outputs).transpose(1, 2)
        else:
            split = self.gradients.flatten(2)
        return split.reshape(self.samples, groups, outputs // groups, split.shape[2])

    @cached_property
    def rows(self) -> Tensor:
        """What each output position sees, (g, B L, n)."""
        return self.sample_rows.permute(1, 0, 3, 2).flatten(1, 2)

    @cached_property
    def outputs(self) -> Tensor:
        """The gradients of the outputs, (g, o, B L)."""
        return self.sample_outputs.permute(1, 2, 0, 3).flatten(2)

    def to(self, like: Tensor) -> "Factors":
        """Return the factors on the device of a tensor."""
        return Factors(self.module, self.shape, self.inputs.to(like.device), self.gradients.to(like.device))

    def gradient(self) -> Tensor:
        """Return the gradient of the weight (*shape)."""
        return (self.outputs @ self.rows).reshape(self.shape)

    def gradients_by_sample(self) -> Tensor:
        """Return the part of each sample in the gradient of the weight (B, *shape)."""
        own, plain = self._kind.own, (self.gradients.dtype, self.gradients.device.type) == (torch.float32, "cpu")
        if own is not None and plain and self.sample_outputs.shape[3] >= MANY:
            inputs, outputs = own.prepare(self._use, self.inputs), self.gradients
            first, last = (each.reshape(1, -1, *each.shape[2:]) for each in (inputs, outputs))
            found = weight_gradient(self._use, first, last, self.samples * self._use.groups)
            return found.reshape(self.samples, *self.shape)
        return (self.sample_outputs @ self.sample_rows.mT).reshape(self.samples, *self.shape)

    def combined(self, combinations: Tensor) -> Tensor:
        """Return combinations of the rows of the weight's gradient in each group, (g, s, n); combinations (s, o)."""
        outputs, own = combinations.to(self.gradients) @ self.sample_outputs, self._kind.own
        if own is None:
            return outputs.permute(1, 2, 0, 3).flatten(2) @ self.rows
        maps = outputs.reshape(self.samples, -1, *self.gradients.shape[2:])
        found = weight_gradient(self._use, own.prepare(self._use, self.inputs), maps, self._use.groups)
        return found.reshape(self._use.groups, len(combinations), -1)

    def gradient_rows(self, chosen: Tensor) -> Tensor:
        """Return the gradient of some rows of the weight, (k, n); `chosen` (k,) are indices of the first axis."""
        per_group = self.outputs.shape[1]
        flat = self.outputs.flatten(0, 1)[chosen]
        if len(self.rows) == 1:
            return flat @ self.rows[0]
        return torch.stack([row @ self.rows[int(index) // per_group] for row, index in zip(flat, chosen, strict=True)])

    def seen(self, queries: Tensor) -> Tensor:
        """Return the inner products of what positions see, here and at queries, (g, B L, m); queries (g, n, m)."""
        return self.rows.to(queries.dtype) @ queries

    def image(self, seen: Tensor) -> Tensor:
        """Return what the gradient makes of the queries, (g, o, m), from `seen`."""
        return self.outputs.to(seen.dtype) @ seen

    def by_sample(self, values: Tensor) -> Tensor:
        """Return sums over groups and positions, (B, m), of values (g, B L, m)."""
        return values.sum(dim=0).reshape(self.samples, -1, values.shape[2]).sum(dim=1)

    @cached_property
    def _use(self) -> Use:
        """The module with its weight's shape."""
        return Use(self.module, self.shape)

    @cached_property
    def _kind(self) -> ModuleKind:
        """What the module's class says of it."""
        found = kind_of(self.module)
        assert found is not None, self.module
        return found
