"""The responses stage: what the neurons of named layers answer to the probing images, from one forward pass.

A neuron is a channel of a layer. Its activation on an image is pooled over positions. Network Dissection also needs
whole maps: they are kept as float16, or made again by a second forward pass.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from configs.concepts import Concepts
from storage.documents import Document, Json, canonical
from storage.layouts import ArrayLayout, Layout, rows_layout
from storage.partitions import Partition
from storage.specs import StageSpec, without_defaults
from storage.stages import FinishedStage, Stage, begun_layout
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import MOST_TOGETHER, Size, Step, Work
from tasks.engine.survey import Survey
from tasks.engine.writing import write_each
from tasks.splitting.channels import TOKENS, ChannelLayout, LayoutError
from tasks.steps.common.activations import MAX_BATCH, MAX_ROWS, PARTITION_BYTES, batches_of, first_input
from tasks.steps.common.content import compare_content
from tasks.steps.common.manifest import positions
from tasks.steps.common.networks import choose_device, load_network
from tasks.steps.common.trials import check_layers, example_images
from tasks.steps.concepts.grids import PATCHES, check_patches, grid_record, pool_maps, with_grids
from tasks.steps.concepts.watched import Watched

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

VERSION = 1
DEFAULTS: Document = {"layout": None, "pool": "mean"}
CHANNELS = 64  # of a map of the input's size, for the images of a partition

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Response:
    """What the layers answer to a batch of images.

    Attributes
    ----------
    start : position of the first image
    pooled : (n, K) float32 by layer
    maps : (n, h, w, K) float32 by layer; vectors are maps of one position
    content : (n, 16) uint8, digests of the images
    """

    start: int
    pooled: Mapping[str, Floats]
    maps: Mapping[str, Floats]
    content: NDArray[np.uint8]


def responses_specs(
    watched: Watched, manifest: StageSpec, asked: Concepts, *, kept_maps: bool, note: str = ""
) -> dict[str, StageSpec]:
    """Return the specs of the responses of a snapshot by layer; one forward pass makes all of them.

    Whether whole maps are kept is not part of the key: they can be made again.

    Parameters
    ----------
    kept_maps : whether whole maps are kept
    note : a line that the plan shows for the snapshot
    """
    network, given, digests, inputs = watched.identity()
    layers = list(asked.layers_of(watched.network))
    layouts = asked.layout if isinstance(asked.layout, dict) else dict.fromkeys(layers, asked.layout)
    place = {**given, "pool": asked.pool, "kept_maps": kept_maps, "together": layers, "note": note}
    place["layouts"] = {layer: layout for layer, layout in layouts.items() if layer in layers and layout is not None}
    found = {}
    for layer in layers:
        layout = layouts.get(layer)
        kept = without_defaults({"layout": layout, "pool": asked.pool}, DEFAULTS)
        parameters = {"network": network, "split": asked.probe.split, "layer": layer, **kept}
        own = {**place, "layers": [layer], "layout": {} if layout is None else {layer: layout}}
        label = f"{watched.network} {watched.label} {layer}"
        found[layer] = RESPONSES.spec(parameters, {"data": manifest, **inputs}, digests=digests, place=own, label=label)
        place["note"] = ""
    return found


def together(specs: Sequence[StageSpec]) -> StageSpec:
    """Return the first of several stages of one snapshot with the layers of all, for one forward pass."""
    layers = [layer for spec in specs for layer in spec.place["layers"]]
    layouts = {layer: layout for spec in specs for layer, layout in spec.place["layout"].items()}
    return replace(specs[0], place={**specs[0].place, "layers": layers, "layout": layouts})


def responses_layout(n: int, layer: str, layout: ChannelLayout, rows: int, *, kept_maps: bool) -> Layout:
    """Return the layout for n images: `pooled.<layer>` (n, K) float32 and `maps.<layer>` (n, h, w, K) float16."""
    neurons, height, width = map_sizes(layout)
    arrays: dict[str, ArrayLayout] = {
        "sample_id": rows_layout((n,), "int64", ("sample",), rows),
        "content": rows_layout((n, 16), "uint8", ("sample", "byte"), rows),
        f"pooled.{layer}": rows_layout((n, neurons), "float32", ("sample", f"{layer} neuron"), rows),
    }
    if kept_maps:
        axes = ("sample", f"{layer} row", f"{layer} column", f"{layer} neuron")
        arrays[f"maps.{layer}"] = rows_layout((n, height, width, neurons), "float16", axes, rows)
    return Layout(-(-n // rows), arrays)


def rows_of(shape: tuple[int, ...]) -> int:
    """Return the number of images of a partition, for inputs (C, h, w): the same for all layers of a network."""
    return min(MAX_ROWS, max(32, PARTITION_BYTES // (4 * CHANNELS * int(np.prod(shape[1:]))) // 32 * 32))


def map_sizes(layout: ChannelLayout) -> tuple[int, int, int]:
    """Return (K, h, w) of a layer's output read as a map; a vector is a map of one position."""
    return replace(layout, grid=None).map_shape if layout.positions else (layout.n_channels, 1, 1)


def run_batches(store: Store, spec: StageSpec, start: int, stop: int, device: torch.device) -> Iterator[Response]:
    """Yield the responses to the images at the positions `start:stop`, from a forward pass of the network."""
    for found in run_positions(store, spec, np.arange(start, stop), device):
        yield replace(found, start=start + found.start)


def run_positions(store: Store, spec: StageSpec, at: NDArray[np.int64], device: torch.device) -> Iterator[Response]:
    """Yield the responses to the images at the positions `at`; their `start` is an index into `at`."""
    import torch

    from tasks.capture import capture_layers, check_finite

    model = load_network(store, spec, device)
    first = first_input(store, spec)
    layouts = _layouts(spec, model, first.to(device))
    if spec.place["pool"] == PATCHES:
        layouts = with_grids(model, layouts, tuple(first.shape[1:]))
    chosen = positions(store, spec.inputs["data"].path, spec.parameters["split"]).iloc[at]
    ids = chosen["id"].to_numpy(np.int64)
    for start, batch in batches_of(spec, chosen["key"].tolist(), tuple(first.shape[1:]), str(device)):
        with torch.inference_mode():
            outputs = capture_layers(model, spec.place["layers"], batch.inputs.to(device), layouts)
        maps = {}
        for layer, output in outputs.items():
            check_finite(output, layer, ids[start : start + len(output)])
            neurons, height, width = map_sizes(layouts[layer])
            maps[layer] = output.reshape(len(output), height, width, neurons)
        pool = str(spec.place["pool"])
        pooled = {layer: pool_maps(found, pool, layouts[layer].grid) for layer, found in maps.items()}
        yield Response(start, pooled, maps, batch.content)


def read_pooled(finished: FinishedStage, layer: str) -> Floats:
    """Return the activations of a layer's neurons, (N, K) float32."""
    found: Floats = finished.read(f"pooled.{layer}").astype(np.float32, copy=False)
    return found


def layer_depth(finished: FinishedStage) -> int:
    """Return the place of a layer among the modules of its network, in the order in which they were made."""
    return int(finished.summary["depth"])


def _layouts(spec: StageSpec, model: nn.Module, image: Tensor) -> dict[str, ChannelLayout]:
    """Return the channel layouts of a stage's layers, from its first image, the same in every process."""
    from tasks.splitting.outputs import find_layouts

    return find_layouts(model, spec.place["layers"], image, spec.place["layout"])


def _layout(store: Store, spec: StageSpec) -> Layout:
    import torch

    rows = positions(store, spec.inputs["data"].path, spec.parameters["split"])
    model, (layer,) = load_network(store, spec, torch.device("cpu")), spec.place["layers"]
    check_layers(model, [layer], example_images(store, spec))
    first = first_input(store, spec)
    layout, n_rows = _layouts(spec, model, first)[layer], rows_of(tuple(first.shape[1:]))
    begun = begun_layout(store, spec)  # a run that was killed may have kept maps where this one does not
    kept_maps = bool(spec.place["kept_maps"]) if begun is None else f"maps.{layer}" in begun.arrays
    return responses_layout(len(rows), layer, layout, n_rows, kept_maps=kept_maps)


def _pass(spec: StageSpec) -> Hashable:
    """Return what layers of one forward pass share: the snapshot with its images."""
    weights = spec.inputs.get("snapshot", spec.inputs.get("network"))
    outside = spec.digests.get("weights", "") + spec.digests.get("code", "")
    shared = canonical([spec.parameters["network"], spec.parameters["split"], spec.parameters.get("pool")])
    return spec.inputs["data"].path, None if weights is None else weights.path, outside, shared


def _partition(work: Work, number: int) -> None:
    """Run the network over a range of positions, for all layers in the work."""
    from tasks.capture import to_storage_dtype

    started, spec = time.perf_counter(), together([stage.spec for stage in work.stages])
    start, stop = work.stage.layout.arrays["sample_id"].span(number)
    chosen = positions(work.stage.store, spec.inputs["data"].path, spec.parameters["split"]).iloc[start:stop]
    filled = [_empty(stage, ids := chosen["id"].to_numpy(np.int64)) for stage in work.stages]
    for found in run_batches(work.stage.store, spec, start, stop, choose_device(work.device)):
        span = slice(found.start - start, found.start - start + len(found.content))
        for stage, arrays in zip(work.stages, filled, strict=True):
            (layer,) = stage.spec.place["layers"]
            arrays["content"][span], arrays[f"pooled.{layer}"][span] = found.content, found.pooled[layer]
            if f"maps.{layer}" in arrays:
                arrays[f"maps.{layer}"][span] = to_storage_dtype(found.maps[layer], "float16", layer, ids[span])
    compare_content(work.stage, spec.parameters["split"], filled[0]["content"], start, chosen)
    spent = (time.perf_counter() - started) / len(work.stages)

    def write(index: int, part: Partition) -> None:
        for name, array in filled[index].items():
            part.write(name, array)
        part.numbers.update(measured(samples=len(chosen), together=len(work.stages), seconds=spent))

    write_each(work.stages, number, write)


def _empty(stage: Stage, ids: NDArray[np.int64]) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of a partition, with the sample ids alone filled in."""
    arrays = {name: np.empty((len(ids), *a.shape[1:]), a.dtype) for name, a in stage.layout.arrays.items()}
    arrays["sample_id"][:] = ids
    return arrays


def _summary(stage: Stage) -> dict[str, Json]:
    """Return the sizes (K, h, w) of the layer, the number of images, and the layer's place among the modules."""
    import torch

    model = load_network(stage.store, stage.spec, torch.device("cpu"))
    first = first_input(stage.store, stage.spec)
    layouts = _layouts(stage.spec, model, first)
    sizes = {layer: list(map_sizes(found)) for layer, found in layouts.items()}
    names = [name for name, _ in model.named_modules()]
    depth = min(names.index(layer) for layer in sizes)
    grids = grid_record(with_grids(model, layouts, tuple(first.shape[1:])))
    found = {"sizes": sizes, "samples": stage.layout.arrays["sample_id"].shape[0], "depth": depth}
    return {**found, "grids": grids} if grids else found


def layer_sizes(spec: StageSpec, survey: Survey) -> dict[str, ChannelLayout]:
    """Return the layouts of all layers of a snapshot, after checking that the network has them."""
    return input_and_layers(spec, survey)[1]


def input_and_layers(spec: StageSpec, survey: Survey) -> tuple[tuple[int, ...], dict[str, ChannelLayout]]:
    """Return the size (C, h, w) of an input, and the layouts of all layers of a snapshot."""
    import torch

    from tasks.splitting.outputs import find_layouts

    layers, layouts = list(spec.place["together"]), dict(spec.place["layouts"])

    def look(model: nn.Module, example: Tensor, images: Tensor) -> tuple[tuple[int, ...], dict[str, ChannelLayout]]:
        with torch.inference_mode():
            found = find_layouts(model, layers, example, layouts)
        for layer, layout in found.items():
            if len(layout.positions) > 2:
                shape = ("n", *layout.shape)
                raise ValueError(f"layer {layer!r}: expected maps, tokens or vectors, found an output {shape}")
            if spec.place["pool"] == "first-token" and layout.name != TOKENS:
                raise ValueError(
                    f"layer {layer!r}: expected tokens for `concepts.pool: first-token`, found {layout.name}"
                )
        check_layers(model, layers, images)
        size = tuple(int(n) for n in example.shape[1:])
        gridded = with_grids(model, found, size)
        if spec.place["pool"] == PATCHES:
            for layer, layout in gridded.items():
                check_patches(layer, map_sizes(layout)[1:], layout.grid)
        return size, gridded

    try:
        return survey.look(spec, f"responses {layers} {sorted(layouts.items())} {spec.place['pool']}", look)
    except LayoutError as error:
        raise ValueError(f"concepts.layout: networks.{spec.place['network']}: {error}") from error


def count_images(spec: StageSpec, survey: Survey) -> int:
    """Return the number of probing images of a stage, after a check that their split exists."""
    return survey.data(spec.inputs["data"]).count(spec.parameters["split"])


def _size(spec: StageSpec, survey: Survey) -> Size:
    shape, layouts = input_and_layers(spec, survey)
    (layer,), n, rows = spec.place["layers"], count_images(spec, survey), rows_of(shape)
    layout = responses_layout(n, layer, layouts[layer], rows, kept_maps=bool(spec.place["kept_maps"]))
    largest = sorted((int(np.prod(found.shape)) for found in layouts.values()), reverse=True)[:MOST_TOGETHER]
    values = 4 * sum(largest)  # of an image, in all layers of one pass
    kept = rows * values // 2 if spec.place["kept_maps"] else 0
    return Size(layout.n_bytes, kept + MAX_BATCH * 6 * values, str(spec.place["note"]))


RESPONSES = Step(
    "responses", VERSION, _layout, _partition, _size, summary=_summary, group=_pass, network=True, keeps_content=True
)
