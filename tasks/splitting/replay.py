"""Cut a network that cannot be traced: one run ends at a module's last call, another replaces its output."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tasks.splitting.operations import is_activation, is_map, is_passed_over, plain, shape_of
from tasks.splitting.tracking import ChannelTracker

Part = Callable[[Tensor], Tensor]


class _Reached(Exception):  # noqa: N818  # not an error: it ends a run at the layer
    """An exception that ends a run and carries a layer's value."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value


def last_map_module(model: nn.Module, example: Tensor) -> str:
    """Return the name of the module whose output is the last post-activation map before pooling."""
    passed: set[int] = set()
    kept: list[Tensor] = []  # keeps the outputs alive, so that their ids stay unique
    found = last = ""
    images = example.clone()
    tracker = ChannelTracker(images)

    blocks: list[str] = []  # of a transformer: modules of a list that give tokens

    def look(name: str, module: nn.Module, output: Tensor) -> None:
        nonlocal found, last
        if isinstance(output, Tensor) and output.ndim == 3 and list(module.children()):
            parent = model.get_submodule(name.rpartition(".")[0])
            blocks.extend([name] if isinstance(parent, nn.Sequential | nn.ModuleList) else [])
        if not is_map(shape_of(output, tracker.axes(output))):
            return
        last = name
        kept.append(output)
        kind = plain(type(module).__name__)
        if is_passed_over(kind) and not list(module.children()):
            passed.add(id(output))
        elif is_activation(kind) or (id(output) not in passed and bool((output >= 0).all())):
            found = name

    with watching(model, look), tracker:
        model(images)
    if not found:
        seen = (
            f"the last map is that of {last} ({type(model.get_submodule(last)).__name__})" if last else "it has no maps"
        )
        raise ValueError(
            f"expected a module whose output is a map (n, channels, h, w) after an activation, found that {seen}; "
            f"name a module{f', such as the block {blocks[-2:][0]}' if blocks else ''}"
        )
    return found


def last_linear_module(model: nn.Module, example: Tensor) -> str:
    """Return the name of the last nn.Linear that a network calls."""
    called = [name for name in _calls(model, example) if isinstance(model.get_submodule(name), nn.Linear)]
    if not called:
        raise ValueError("expected a network that calls nn.Linear, found no call")
    return called[-1]


def parts(model: nn.Module, name: str, example: Tensor, *, at_input: bool) -> tuple[Part, Part]:
    """Return the network up to the last call of a module and the network after it.

    The head runs the whole network on noise and replaces the module's value by the maps. It is as slow as the network.
    It is right only where every path passes through the maps. The caller must check that.
    """
    n_calls = _calls(model, example).count(name)
    if n_calls == 0:
        raise ValueError(f"module {name!r}: expected a call in the network's forward, found none")
    module = model.get_submodule(name)
    # The noise differs from every example: the same image would hide a path around the layer.
    noise = torch.randn((1, *example.shape[1:]), generator=torch.Generator().manual_seed(1)).to(example)

    def reach(value: Tensor) -> Tensor:
        raise _Reached(value)

    def trunk(x: Tensor) -> Tensor:
        try:
            with _replacing(module, n_calls, reach, at_input=at_input):
                model(x.clone())
        except _Reached as reached:
            return reached.value
        raise ValueError(f"module {name!r}: expected {n_calls} calls for every input, found fewer for some inputs")

    def head(maps: Tensor) -> Tensor:
        with _replacing(module, n_calls, lambda value: maps.clone(), at_input=at_input):
            logits: Tensor = model(noise.repeat(len(maps), *[1] * (noise.ndim - 1)))
        return logits

    return trunk, head


def _calls(model: nn.Module, example: Tensor) -> list[str]:
    """Return the names of a network's modules in the order in which their calls end."""
    calls: list[str] = []
    with watching(model, lambda name, module, output: calls.append(name)):
        model(example.clone())
    return calls


@contextmanager
def watching(model: nn.Module, look: Callable[[str, nn.Module, Tensor], object]) -> Iterator[None]:
    """Show every module's output to `look` during the block."""

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:  # Any: modules take and return anything
        def show(module: nn.Module, inputs: Any, output: Any) -> None:
            look(name, module, output)

        return show

    handles = [module.register_forward_hook(hook(name)) for name, module in model.named_modules() if name]
    try:
        with torch.inference_mode():
            yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _replacing(
    module: nn.Module, n_calls: int, change: Callable[[Tensor], Tensor], *, at_input: bool
) -> Iterator[None]:
    """Apply `change` to the input or the output of the `n_calls`-th call of a module during the block."""
    count = 0

    def last(value: Tensor) -> Tensor | None:
        nonlocal count
        count += 1
        return change(value) if count == n_calls else None

    handle = (
        module.register_forward_pre_hook(lambda module, inputs: last(inputs[0]))
        if at_input
        else module.register_forward_hook(lambda module, inputs, output: last(output))
    )
    try:
        yield
    finally:
        handle.remove()
