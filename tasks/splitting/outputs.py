"""The outputs of layers, and their layouts."""

import difflib
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from tasks.splitting import replay
from tasks.splitting.channels import ChannelLayout, LayoutError, decide_layout
from tasks.splitting.tracking import ChannelTracker


def find_layouts(
    model: nn.Module, layers: Sequence[str], example: Tensor, wanted: Mapping[str, str] | None = None
) -> dict[str, ChannelLayout]:
    """Return the layouts of the outputs of named modules, at their last call.

    Parameters
    ----------
    model : in evaluation mode
    layers : module names
    example : (1, C, H, W), an image like those of later calls in size and kind, on the model's device
    wanted : "channels-first", "channels-last" or "tokens" by layer; other layouts are found in the network

    Returns
    -------
    by layer

    Raises
    ------
    ValueError : the output of a layer is not a tensor with images on axis 0
    LayoutError : the axis of the channels is not known
    """
    tracker = ChannelTracker(example)
    axes: dict[str, frozenset[int]] = {}
    with tracker:
        outputs = layer_outputs(model, layers, example, lambda layer, value: axes.update({layer: tracker.axes(value)}))
    found = {}
    for layer, output in outputs.items():
        if output.ndim < 2 or len(output) != len(example):
            shape = tuple(output.shape)
            raise ValueError(f"layer {layer!r}: expected {len(example)} images on axis 0, found shape {shape}")
        try:
            found[layer] = decide_layout(tuple(output.shape), axes[layer], (wanted or {}).get(layer))
        except LayoutError as error:
            raise LayoutError(f"layer {layer!r}: {error}") from error
    return found


def part_layout(trunk: replay.Part, layer: str, example: Tensor, wanted: str | None) -> ChannelLayout:
    """Return the layout of a trunk's output."""
    one = example[:1].clone()  # a network may change it in place
    with torch.inference_mode(), ChannelTracker(one) as tracker:
        maps = trunk(one)
    try:
        return decide_layout(tuple(maps.shape), tracker.axes(maps), wanted)
    except LayoutError as error:
        raise LayoutError(f"layer {layer!r}: {error}") from error


def layer_outputs(
    model: nn.Module, layers: Sequence[str], images: Tensor, look: Callable[[str, Tensor], object] | None = None
) -> dict[str, Tensor]:
    """Return the outputs of named modules at their last call; `look` sees each output before later changes."""
    found: dict[str, Tensor] = {}
    for layer in layers:
        check_name(model, layer)

    def keep(layer: str, output: object) -> None:
        if not isinstance(output, Tensor):
            raise ValueError(f"layer {layer!r}: expected a tensor as output, found a {type(output).__name__}")
        if look is not None:
            look(layer, output)
        found[layer] = output.clone()  # later operations may change it in place

    with replay.watching(model, lambda name, module, output: keep(name, output) if name in layers else None):
        model(images.clone())
    missing = [layer for layer in layers if layer not in found]
    if missing:
        raise ValueError(f"layer {missing[0]!r}: expected a call in the network's forward, found none")
    return {layer: found[layer] for layer in layers}


def check_name(model: nn.Module, layer: str) -> None:
    """Raise ValueError unless a network has a module of that name."""
    names = [name for name, _ in model.named_modules() if name]
    if layer not in names:
        close = difflib.get_close_matches(layer, names, 5, 0.4) or names[-5:]
        raise ValueError(
            f"layer {layer!r}: expected a module, found none; close: {', '.join(close)}; or last-map, penultimate"
        )


def largest_output(model: nn.Module, example: Tensor) -> int:
    """Return the number of values in the largest output of any module, for one sample."""
    return max(_output_sizes(model, example)) // len(example)


def all_outputs(model: nn.Module, example: Tensor) -> int:
    """Return the number of values in the outputs of all modules, for one sample: about what a backward pass keeps."""
    return sum(_output_sizes(model, example)) // len(example)


def _output_sizes(model: nn.Module, example: Tensor) -> list[int]:
    """Return the number of values in the input, and in the output of each module."""
    sizes = [example.numel()]

    def note(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            sizes.append(output.numel())

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    try:
        with torch.inference_mode():
            model(example.clone())
    finally:
        for hook in hooks:
            hook.remove()
    return sizes
