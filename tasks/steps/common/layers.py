"""The layers stage: activations of any named layers, pooled or whole, for a user's own analysis."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from configs.schema import Network
from storage.documents import Document, Json
from storage.layouts import ArrayLayout, Layout, rows_layout
from storage.specs import StageSpec, without_defaults
from storage.stages import Stage
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.splitting.channels import ChannelLayout, LayoutError
from tasks.steps.common.activations import MAX_BATCH, MAX_ROWS, PARTITION_BYTES, batches_of, first_input, range_summary
from tasks.steps.common.content import compare_content
from tasks.steps.common.manifest import positions
from tasks.steps.common.networks import choose_device, load_network, network_identity
from tasks.steps.common.trials import check_layers, example_images

if TYPE_CHECKING:
    from torch import Tensor, nn

VERSION = 2


def layers_spec(
    name: str, network: Network, manifest: StageSpec, training: StageSpec | None, settings: Document, split: str
) -> StageSpec:
    """Return the spec of named layers' activations on a split; `settings` are layers, layout, keep and dtype."""
    parameters, place, digests = network_identity(name, network, training)
    inputs = {"data": manifest} if training is None else {"data": manifest, "network": training}
    kept = without_defaults(settings, {"layout": None, "keep": ["pooled"], "dtype": "float32"})
    parameters = {"network": parameters, "split": split, **kept}
    return LAYERS.spec(parameters, inputs, digests=digests, place={**place, **settings}, label=f"{name} {split}")


def wanted_layouts(settings: Document) -> dict[str, str]:
    """Return the channel layouts that the config gives, by layer."""
    said = settings["layout"]
    if isinstance(said, str):
        return dict.fromkeys(settings["layers"], said)
    return dict(said or {})


def layers_layout(n: int, layouts: Mapping[str, ChannelLayout], settings: Document) -> Layout:
    """Return the layout for n samples of layers whose outputs have `layouts`.

    Arrays are `pooled.<layer>` (n, d) and `maps.<layer>` (n, ..., d); a layer without positions is stored unchanged.
    """
    per_sample = 4 * sum(int(np.prod(found.shape)) for found in layouts.values())
    rows = min(MAX_ROWS, max(32, PARTITION_BYTES // per_sample // 32 * 32))
    arrays: dict[str, ArrayLayout] = {
        "sample_id": rows_layout((n,), "int64", ("sample",), rows),
        "label": rows_layout((n,), "int64", ("sample",), rows),
        "content": rows_layout((n, 16), "uint8", ("sample", "byte"), rows),
    }
    for layer, found in layouts.items():
        shape = (*found.positions, found.n_channels)
        axes = [f"{layer} axis {axis}" for axis in range(1, len(shape))]
        for kind in settings["keep"]:
            kept = shape if kind == "maps" else shape[-1:]
            names = ("sample", *axes[: len(kept) - 1], f"{layer} channel")
            arrays[f"{kind}.{layer}"] = rows_layout((n, *kept), settings["dtype"], names, rows)
    return Layout(-(-n // rows), arrays)


def _layout(store: Store, spec: StageSpec) -> Layout:
    import torch

    rows = positions(store, spec.inputs["data"].path, spec.parameters["split"])
    model = load_network(store, spec, torch.device("cpu"))
    check_layers(model, spec.place["layers"], example_images(store, spec))
    return layers_layout(len(rows), _layouts(spec, model, first_input(store, spec)), dict(spec.place))


def _layouts(spec: StageSpec, model: nn.Module, image: Tensor) -> dict[str, ChannelLayout]:
    """Return the channel layouts of a stage's layers, from its first image, the same in every process."""
    from tasks.splitting.outputs import find_layouts

    return find_layouts(model, spec.place["layers"], image, wanted_layouts(dict(spec.place)))


def _partition(work: Work, number: int) -> None:
    """Run the network over a range of positions."""
    import torch

    from tasks.capture import capture_layers, check_finite, to_storage_dtype

    stage, spec, device = work.stage, work.stage.spec, choose_device(work.device)
    model = load_network(stage.store, spec, device)
    rows = positions(stage.store, spec.inputs["data"].path, spec.parameters["split"])
    first_image = first_input(stage.store, spec)
    shape, layouts = tuple(first_image.shape[1:]), _layouts(spec, model, first_image.to(device))
    with stage.partition(number) as part:
        start, stop = part.span
        chosen = rows.iloc[start:stop]
        arrays = {name: np.empty((stop - start, *a.shape[1:]), a.dtype) for name, a in stage.layout.arrays.items()}
        arrays["sample_id"][:], arrays["label"][:] = chosen["id"], chosen["label_given"]
        for first, batch in batches_of(spec, chosen["key"].tolist(), shape, str(device)):
            last = first + len(batch.inputs)
            arrays["content"][first:last] = batch.content
            with torch.inference_mode():
                found = capture_layers(model, spec.place["layers"], batch.inputs.to(device), layouts)
            for name, array in arrays.items():
                kind, _, layer = name.partition(".")
                if layer:
                    ids = arrays["sample_id"][first:last]
                    check_finite(found[layer], layer, ids)
                    kept = found[layer]
                    if kind == "pooled" and kept.ndim > 2:
                        kept = kept.mean(axis=tuple(range(1, kept.ndim - 1)))
                    array[first:last] = to_storage_dtype(kept, str(array.dtype), layer, ids)
        compare_content(stage, str(spec.parameters["split"]), arrays["content"], start, chosen)
        for name, array in arrays.items():
            part.write(name, array)
        part.numbers.update(measured(samples=len(chosen)))


def _summary(stage: Stage) -> dict[str, Json]:
    """Return the summary: classes with their ranges, and the network's own layout of each layer."""
    import torch

    model = load_network(stage.store, stage.spec, torch.device("cpu"))
    layouts = _layouts(stage.spec, model, first_input(stage.store, stage.spec))
    return {**range_summary(stage), "layouts": {layer: found.name for layer, found in layouts.items()}}


def _size(spec: StageSpec, survey: Survey) -> Size:
    import torch

    from tasks.splitting.outputs import find_layouts

    settings, n = dict(spec.place), survey.data(spec.inputs["data"]).count(spec.parameters["split"])

    def look(model: nn.Module, example: Tensor, images: Tensor) -> dict[str, ChannelLayout]:
        with torch.inference_mode():
            layouts = find_layouts(model, settings["layers"], example, wanted_layouts(settings))
        check_layers(model, settings["layers"], images)
        return layouts

    try:
        layouts = survey.look(spec, f"layers {settings['layers']} {settings['layout']}", look)
    except LayoutError as error:
        raise ValueError(f"activations.layout: networks.{spec.place['network']}: {error}") from error
    layout = layers_layout(n, layouts, settings)
    row = 4 * sum(math.prod(one.shape) for one in layouts.values())
    return Size(layout.n_bytes, row * (2 * next(iter(layout.arrays.values())).rows + 4 * MAX_BATCH))


LAYERS = Step("layers", VERSION, _layout, _partition, _size, summary=_summary, network=True, keeps_content=True)
