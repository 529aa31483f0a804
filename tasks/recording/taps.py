"""Taps on layers: during a step they see the layers' inputs and the gradients of their outputs, and change nothing."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tasks.modules.rows import by_sample, declared_counts


@dataclass
class Call:
    """A call of a layer in a step.

    Parameters
    ----------
    inputs : as the layer took them, ragged rows with an axis of samples; None where they are not one tensor
    gradients : of the outputs, likewise, None without a backward pass through them
    """

    inputs: Tensor | None
    gradients: Tensor | None = None

    def saw(self, gradient: Tensor) -> None:
        """Add the gradient of a backward pass; several passes through one call add up."""
        self.gradients = gradient if self.gradients is None else self.gradients + gradient


@dataclass
class Taps:
    """The calls of some layers during a step; hooks last as long as `during`."""

    modules: Mapping[str, nn.Module]
    calls: dict[str, list[Call]] = field(default_factory=dict, init=False)

    @contextmanager
    def during(self) -> Iterator[None]:
        """Watch the layers in the block; the calls are gone after it."""
        self.calls = {name: [] for name in self.modules}
        with ExitStack() as hooks:
            for name, module in self.modules.items():
                handle = module.register_forward_hook(self._hook(name, hooks), with_kwargs=True)
                hooks.callback(handle.remove)
            try:
                yield
            finally:
                self.calls = {}

    def of(self, name: str) -> list[Call]:
        """Return the calls of a layer that a backward pass went through, in the order of the calls."""
        return [call for call in self.calls.get(name, []) if call.gradients is not None]

    def _hook(self, name: str, hooks: ExitStack) -> "_Hook":
        """Return the hook of a layer."""
        return _Hook(self, name, hooks)


@dataclass
class _Hook:
    """The forward hook of a layer: it notes the input and asks for the gradient of the output."""

    taps: Taps
    name: str
    hooks: ExitStack

    def __call__(self, module: nn.Module, given: tuple[object, ...], named: dict[str, object], output: object) -> None:
        """Note a call."""
        if not isinstance(output, Tensor) or not output.requires_grad:
            return
        values = [*given, *named.values()]
        whole = values[0].detach() if len(values) == 1 and isinstance(values[0], Tensor) else None
        counts = None if whole is None else declared_counts(whole)
        call = Call(None if whole is None else by_sample(whole, counts))
        self.taps.calls[self.name].append(call)
        handle: RemovableHandle = output.register_hook(  # type: ignore[no-untyped-call]  # torch's stub
            lambda gradient: call.saw(by_sample(gradient, counts))
        )
        self.hooks.callback(handle.remove)


def moved(tensors: Sequence[Tensor], targets: Tensor) -> None:
    """Copy tensors (B_i, ...) one after the other into `targets` (sum of B_i, ...)."""
    with torch.no_grad():
        start = 0
        for tensor in tensors:
            targets[start : start + len(tensor)].copy_(tensor)
            start += len(tensor)
