"""Cut a network into trunk and head, and capture activations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from tasks.modules.rows import Inputs
from tasks.splitting import replay
from tasks.splitting.answers import check_alone, check_answers, largest_difference, size
from tasks.splitting.channels import ChannelLayout
from tasks.splitting.graph import NOT_TRACEABLE, Graph, Part
from tasks.splitting.outputs import check_name, find_layouts, layer_outputs, part_layout
from tasks.splitting.watching import Watch

LAST_MAP, PENULTIMATE = "last-map", "penultimate"
Floats = NDArray[np.floating[Any]]  # Any: float16 to float64


@dataclass(frozen=True)
class Split:
    """A network in two parts that share its parameters: `head(trunk(x)) == model(x)`."""

    trunk: Part  # images (n, C, H, W) -> the layer's output in the network's layout, (n, d) at `penultimate`
    head: Part  # -> logits (n, n_outputs)
    layer: str  # as the caller named it
    place: str  # where that layer lies in this network, in words
    layout: ChannelLayout  # of the layer's output
    n_outputs: int
    device: torch.device

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of one sample: (d, h, w) of a map, (d, 1, l) of tokens, (d,) of features."""
        return self.layout.map_shape if self.layout.positions else self.layout.shape


def split_at(
    model: nn.Module,
    layer: str,
    example: Tensor,
    *,
    images: Tensor | None = None,
    layout: str | None = None,
) -> Split:
    """Cut a network at a layer, and check the two parts against the whole network.

    Parameters
    ----------
    model : in evaluation mode; the parts belong to that mode
    layer : `last-map` (the last post-activation map before pooling); `penultimate` (the input of the last linear
        layer); or the name of a module. The output of its last call must be a map of any layout or tokens (n, l, d).
    example : (n, C, H, W), images like those of later calls in size and kind, on the model's device
    images : (m, C, H, W), real images for the same checks: noise does not show every difference
    layout : "channels-first", "channels-last" or "tokens"; by default the layout is found in the network

    Returns
    -------
    Split

    Raises
    ------
    ValueError : the network does not have the layer, or cannot be cut there
    LayoutError : the axis of the channels is not known

    Notes
    -----
    The network's graph is cut where torch.fx can trace it. Otherwise the trunk ends a run at the layer's last call.
    The head is then a whole run in which the maps replace the layer's output. In both cases the network's output must
    depend on its input through the layer alone. A check on two batch sizes refuses everything else. It also refuses a
    network that is random in evaluation mode. It also refuses one whose answer to an image depends on the batch.
    """
    tried = example if images is None else torch.cat([example, images])
    n_outputs = _check_model(model, layer, example)
    check_answers(lambda batch: {"logits": model(batch)}, tried)
    try:
        graph = Graph(model, example)
    except NOT_TRACEABLE:
        graph = None
    node = None if graph is None else _node(graph, layer)
    if graph is not None and node is not None and node in graph.cuts:
        trunk, head = graph.parts(node)
        _check_shape(trunk, layer, example)
        if not _difference(model, trunk, head, tried):
            check_alone(lambda batch: {f"layer {layer!r}": trunk(batch)}, tried)
            found = part_layout(trunk, layer, example, layout)
            return Split(trunk, head, layer, graph.describe(node), found, n_outputs, example.device)
    trunk, head, name = _replayed(model, layer, example, tried)
    return Split(trunk, head, layer, name, part_layout(trunk, layer, example, layout), n_outputs, example.device)


def capture_parts(split: Split, images: Tensor) -> tuple[Floats, Floats | None, Floats]:
    """Run a batch through a network, as `capture_batch`; return maps, the tokens set apart (n, k, d), and logits."""
    with torch.inference_mode():
        given = split.trunk(images.to(split.device, non_blocking=True))
        logits, maps, apart = split.head(given), split.layout.maps(given), split.layout.apart(given)
        return _array(maps), None if apart is None else _array(apart), _array(logits)


def capture_batch(split: Split, images: Tensor) -> tuple[Floats, Floats]:
    """Run a batch through a network and return maps and logits; without the tokens that are set apart.

    Parameters
    ----------
    split : the network
    images : (n, C, H, W) float32, on any device

    Returns
    -------
    maps (n, h, w, d) float32, for tokens (n, 1, l, d), or features (n, d); and logits (n, n_outputs) float32
    """
    maps, _, logits = capture_parts(split, images)
    return maps, logits


def run_head(split: Split, maps: Floats, apart: Floats | None = None) -> Floats:
    """Return the logits that the head computes from maps.

    Parameters
    ----------
    split : the network
    maps : (n, h, w, d) or (n, d), any float, as `capture_batch` returns them
    apart : (n, k, d), the tokens set apart, for layers that have them

    Returns
    -------
    (n, n_outputs) float32
    """
    with torch.inference_mode():
        native = split.layout.native(_tensor(maps), None if apart is None else _tensor(apart)).contiguous()
        return _array(split.head(native.to(split.device)))


def capture_layers(
    model: nn.Module, layers: Sequence[str], images: Tensor, layouts: Mapping[str, ChannelLayout] | None = None
) -> dict[str, Floats]:
    """Return the outputs of named modules at their last call; a module may lie anywhere in the network.

    Parameters
    ----------
    model : in evaluation mode
    layers : module names
    images : (n, C, H, W), on the model's device
    layouts : of the layers; by default they are found in the network with the first image

    Returns
    -------
    by layer: (n, ..., d) float32, the channel axis last
    """
    layouts = layouts or find_layouts(model, layers, images[:1])
    found = layer_outputs(model, layers, images)
    return {layer: layouts[layer].common(found[layer]).float().cpu().numpy() for layer in layers}


def capture_inputs(model: nn.Module, layers: Sequence[str], images: Tensor) -> dict[str, Inputs]:
    """Return the inputs of traced layers, from the modules' own calls.

    Parameters
    ----------
    model : in evaluation mode
    layers : names of modules called with one tensor, of maps of modules that hold several, or of single calls
        (`tasks.modules.naming`)
    images : (n, C, h, w), on the model's device

    Returns
    -------
    by layer: (n, ...), as the module takes it, or the stand-in of a map; several calls lie one after the other. Ragged
    rows where the network declares the rows of each sample
    """
    watch = Watch(model, layers)
    with torch.inference_mode(), watch.during():
        model(images.clone())
    return watch.inputs(len(images))


def find_output_layer(model: nn.Module, example: Tensor) -> str | None:
    """Return the name of the linear layer that gives the network's output, None without such a layer."""
    kept: dict[str, tuple[Tensor, Tensor]] = {}

    def look(name: str, module: nn.Module, output: Tensor) -> None:
        if isinstance(module, nn.Linear):
            kept[name] = output, output.clone()  # later operations may change it in place

    with torch.inference_mode(), replay.watching(model, look):
        logits = model(example.clone())
    return next((name for name, (output, then) in kept.items() if output is logits and torch.equal(output, then)), None)


def check_finite(array: Floats, layer: str, sample_ids: NDArray[np.int64]) -> None:
    """Raise ValueError for NaN or infinite values in an array (n, ...); the message names layer and first sample."""
    bad = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
    if bad.any():
        raise ValueError(
            f"layer {layer!r}: expected finite activations, found NaN or infinity for sample id "
            f"{sample_ids[bad.argmax()]} ({bad.sum()} of {len(array)} samples here); check weights and preprocessing"
        )


def to_storage_dtype(array: Floats, dtype: str, layer: str, sample_ids: NDArray[np.int64]) -> Floats:
    """Return an array (n, ...) as `dtype`; values beyond the range of float16 raise ValueError."""
    check_finite(array, layer, sample_ids)
    target = np.dtype(dtype)
    limit = float(np.finfo(target).max)
    largest = np.abs(array).reshape(len(array), -1).max(axis=1, initial=0)
    if (largest > limit).any():
        first = int((largest > limit).argmax())
        raise ValueError(
            f"layer {layer!r}: expected activations up to {limit:g}, the largest {dtype}, found {largest[first]:g} "
            f"for sample id {sample_ids[first]}; set `dtype: float32`"
        )
    return array.astype(target, copy=False)


def _array(values: Tensor) -> Floats:
    """Return a tensor as float32."""
    return values.float().cpu().numpy()


def _tensor(values: Floats) -> Tensor:
    """Return an array as a float32 tensor."""
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def _node(graph: Graph, layer: str) -> fx.Node | None:
    """Return the node of a layer in the graph, None where the graph does not show the layer."""
    try:
        if layer == LAST_MAP:
            return graph.last_map()
        return graph.penultimate() if layer == PENULTIMATE else graph.outputs.get(layer)
    except ValueError as error:
        raise ValueError(f"layer {layer!r}: {error}") from error


def _replayed(model: nn.Module, layer: str, example: Tensor, tried: Tensor) -> tuple[Part, Part, str]:
    """Cut a network by replay, check the parts on the images `tried`; return the parts and the module's name."""
    try:
        if layer == LAST_MAP:
            name = replay.last_map_module(model, example)
        else:
            name = replay.last_linear_module(model, example) if layer == PENULTIMATE else layer
        trunk, head = replay.parts(model, name, example, at_input=layer == PENULTIMATE)
        _check_shape(trunk, layer, example)
    except ValueError as error:
        raise ValueError(f"layer {layer!r}: {error}") from error
    difference = _difference(model, trunk, head, tried)
    if difference:
        raise ValueError(
            f"layer {layer!r}: expected a layer that every path passes through, found a path around it "
            f"({difference}); name another layer, such as the end of a block"
        )
    check_alone(lambda batch: {f"layer {layer!r}": trunk(batch)}, tried)
    return trunk, head, name


def _check_model(model: nn.Module, layer: str, example: Tensor) -> int:
    """Raise ValueError unless a network is in evaluation mode, has the layer and gives logits (n, C); return C."""
    if any(module.training for module in model.modules()):
        raise ValueError("model: expected evaluation mode, found training mode; call model.eval() first")
    if layer not in (LAST_MAP, PENULTIMATE):
        check_name(model, layer)
    with torch.inference_mode():
        logits = model(example.clone())
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(example):
        found = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"model: expected logits (n, classes) for {len(example)} images, found {found}")
    if not bool(logits.isfinite().all()):
        raise ValueError("model: expected finite logits, found NaN or infinity; check weights and preprocessing")
    return logits.shape[1]


def _check_shape(trunk: Part, layer: str, example: Tensor) -> None:
    """Raise ValueError unless a trunk gives maps or tokens, or features (n, d) at `penultimate`."""
    with torch.inference_mode():
        maps: object = trunk(example)
    found = tuple(maps.shape) if isinstance(maps, Tensor) else (type(maps).__name__,)
    if len(found) not in ((2,) if layer == PENULTIMATE else (3, 4)) or found[0] != len(example):
        expected = "features (n, d)" if layer == PENULTIMATE else "maps (n, d, h, w)"
        others = "" if layer == PENULTIMATE else ", (n, h, w, d) or tokens (n, l, d)"
        raise ValueError(f"layer {layer!r}: expected {expected}{others} for {len(example)} images, found {found}")


def _difference(model: nn.Module, trunk: Part, head: Part, example: Tensor) -> str:
    """Compare the parts with the network at two batch sizes; return the difference, "" where they agree."""
    for batch in (example, example[:1] if len(example) > 1 else torch.cat([example, example])):
        with torch.inference_mode():
            expected, found = model(batch.clone()), head(trunk(batch.clone()))
        if found.shape != expected.shape:
            return f"logits {tuple(found.shape)} instead of {tuple(expected.shape)}"
        largest = largest_difference(found, expected)
        tolerance = 1e-4 if expected.dtype in (torch.float32, torch.float64) else 1e-2  # of the largest logit
        if largest > tolerance * size(expected):
            return f"logits differ by up to {largest:.3g}"
    return ""
