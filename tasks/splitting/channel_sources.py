"""The operation that gives a layer's channels: the last one with a unit for each channel, and only for that channel."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tasks.modules import kind_of
from tasks.splitting.channels import ChannelLayout
from tasks.tracing.patches import Operation

NEAR = 1e-3  # relative difference of two derivatives that are the same
SEED = 0


@dataclass(frozen=True)
class _Call:
    """One call of an operation: its output, and the axis of its units."""

    name: str
    output: Tensor
    axis: int


def channel_operation(
    model: nn.Module, layer: str, images: Tensor, layout: ChannelLayout, known: Sequence[str] | None = None
) -> str:
    """Return the name of the linear map or convolution that gives the channels of a layer.

    Parameters
    ----------
    model : in evaluation mode
    layer : name of a module, whose last call counts
    images : (n, C, h, w), a few real ones: an activation function of noise may be 0 everywhere
    layout : of the layer's output
    known : names of operations that may be returned; None for all

    Returns
    -------
    the name of a module. Channel c of the layer depends on the operation's outputs through unit c alone. Of several
    operations whose units are added up, such as those of a residual block, that with the most weights

    Raises
    ------
    ValueError : the layer does not have such an operation, the network calls it several times, or it is not known

    Notes
    -----
    The sum of all channels, each with a random weight, is differentiated by the operation's outputs. Where each unit
    reaches its own channel alone, the derivative over the weight is the same for any weights. A gate reaches its own
    channel too: where outputs are added up, the derivative does not depend on what else reaches the layer.
    """
    with torch.enable_grad():
        calls, output, _ = _watched(model, layer, images)
        found = list(_nearest(calls, layout.common(output)))
        added = False
        if found:
            held, output, given = _watched(model, layer, images, hold=[call.name for call in found])
            added = _are_added(held, layout.common(output), given)
    if not added:
        names = " and ".join(repr(call.name) for call in found)
        why = f"{names}, whose units something else multiplies" if found else "a layer that mixes units after the last"
        raise ValueError(
            f"layer {layer!r}: expected neurons that each are a unit of a linear map or a convolution, found {why}"
        )
    usable = [call for call in found if known is None or call.name in known]
    if not usable:
        names = " or ".join(repr(call.name) for call in found)
        raise ValueError(
            f"layer {layer!r}: expected recorded updates of its operation {names}, found those of "
            f"{', '.join(known or ())}; add it to `record.layers`"
        )
    best = max(usable, key=lambda call: _n_weights(model, call.name))
    times = sum(call.name == best.name for call in calls)
    if times > 1:
        raise ValueError(f"layer {layer!r}: expected one call of its operation {best.name!r}, found {times}")
    return best.name


def _nearest(calls: Sequence[_Call], channels: Tensor) -> Iterator[_Call]:
    """Yield the operations with a unit for each channel, without those that only reach the layer through another."""
    nearest: list[_Call] = []
    for call in reversed(calls):
        if any(_reaches(call.output, other.output) for other in nearest):
            continue
        if not _reaches(call.output, channels):
            continue
        if not _by_channel(call, channels):
            return  # what lies before it is mixed by it, or by what follows it
        nearest.append(call)
        yield call


def _reaches(source: Tensor, target: Tensor) -> bool:
    """Say whether a value of the network depends on another."""
    (found,) = torch.autograd.grad(target.sum(), source, retain_graph=True, allow_unused=True)
    return found is not None


def _by_channel(call: _Call, channels: Tensor) -> bool:
    """Say whether each channel depends on one unit alone, that of the same number."""
    if call.output.shape[call.axis] != channels.shape[-1]:
        return False
    rng = torch.Generator().manual_seed(SEED)
    found = []
    for _ in range(2):
        weights = torch.randn(channels.shape[-1], generator=rng).to(channels)
        (slope,) = torch.autograd.grad((channels * weights).sum(), call.output, retain_graph=True)
        found.append(slope.movedim(call.axis, -1) / weights)
    size = max(float(each.abs().max()) for each in found)
    return size > 0 and float((found[0] - found[1]).abs().max()) <= NEAR * size


def _are_added(held: Sequence[_Call], channels: Tensor, given: Tensor) -> bool:
    """Say whether the derivative by each operation's units is free of the other operations, and of other paths."""
    for call in held:
        (slope,) = torch.autograd.grad(channels.sum(), call.output, create_graph=True, allow_unused=True)
        others = [given, *(other.output for other in held if other is not call)]
        if slope is None or not slope.requires_grad:  # an earlier call of an operation may reach a held one only
            continue
        for change in torch.autograd.grad(slope.sum(), others, retain_graph=True, allow_unused=True):
            if change is not None and float(change.abs().max()) > 0:
                return False
    return True


def _n_weights(model: nn.Module, name: str) -> int:
    """Return the number of weights of each unit of an operation."""
    weight = model.get_submodule(name).get_parameter("weight")
    return weight.numel() // Operation(model.get_submodule(name), tuple(weight.shape)).n_outputs


def _watched(
    model: nn.Module, layer: str, images: Tensor, hold: Sequence[str] = ()
) -> tuple[list[_Call], Tensor, Tensor]:
    """Return the calls of all operations up to the last call of a layer, the layer's output, and the images.

    With `hold`, only the calls of these operations. Their outputs are held: they do not depend on what is before them.
    """
    calls: list[_Call] = []
    ended: list[tuple[int, Tensor]] = []

    def look(name: str, module: nn.Module, output: object) -> Tensor | None:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return None
        if hold and name in hold:
            output = output.detach().requires_grad_()
        if _is_operation(module) and (not hold or name in hold):
            axis = -1 if isinstance(module, nn.Linear) else 1
            calls.append(_Call(name, output, axis))
        if name == layer:
            ended.append((len(calls), output))
        return output.clone()  # what follows may change it in place

    given = images.clone().requires_grad_()
    with _shown(model, look):
        model(given.clone())  # an operation in place cannot change what is differentiated by
    if not ended:
        raise ValueError(f"layer {layer!r}: expected a call in the network's forward, found none")
    count, output = ended[-1]
    return calls[:count], output, given


def _is_operation(module: nn.Module) -> bool:
    """Say whether a module is a linear map or a convolution with weights of its own."""
    if not isinstance(getattr(module, "weight", None), Tensor):
        return False
    convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    return isinstance(module, (nn.Linear, *convolutions)) and kind_of(module) is not None


@contextmanager
def _shown(model: nn.Module, look: Callable[[str, nn.Module, object], Tensor | None]) -> Iterator[None]:
    """Show the output of every module to a function, and put in its place what the function returns."""

    def hook(name: str) -> Callable[[nn.Module, object, object], Tensor | None]:
        return lambda module, inputs, output: look(name, module, output)

    handles = [module.register_forward_hook(hook(name)) for name, module in model.named_modules() if name]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
