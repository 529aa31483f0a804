"""The layers stage: any named layers of a network, pooled or whole, for a user's own analysis."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from configs.schema import Network
from storage.documents import Document
from storage.layouts import ArrayLayout, Layout, rows_layout
from storage.specs import StageSpec, without_defaults
from storage.stores import Store
from tasks.capture import capture_layers, check_finite, to_storage_dtype
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.common.activations import MAX_BATCH, MAX_ROWS, PARTITION_BYTES, batches_of, first_input, slab_summary
from tasks.steps.common.content import compare_content
from tasks.steps.common.manifest import positions
from tasks.steps.common.networks import choose_device, load_network, network_identity

VERSION = 1


def layers_spec(
    name: str, network: Network, manifest: StageSpec, training: StageSpec | None, settings: Document, split: str
) -> StageSpec:
    """Return the spec of named layers' activations on a split; `settings` are layers, keep and dtype."""
    parameters, place, digests = network_identity(name, network, training)
    inputs = {"data": manifest} if training is None else {"data": manifest, "network": training}
    kept = without_defaults(settings, {"keep": ["pooled"], "dtype": "float32"})
    parameters = {"network": parameters, "split": split, **kept}
    return LAYERS.spec(parameters, inputs, digests=digests, place={**place, **settings}, label=f"{name} {split}")


def layers_layout(n: int, shapes: dict[str, tuple[int, ...]], settings: Document) -> Layout:
    """Return the layout for n samples of layers whose outputs have `shapes`, channels last.

    Arrays are `pooled.<layer>` (n, d) and `maps.<layer>` (n, ..., d); a layer without positions is kept as it is.
    """
    per_sample = 4 * sum(int(np.prod(shape)) for shape in shapes.values())
    rows = min(MAX_ROWS, max(32, PARTITION_BYTES // per_sample // 32 * 32))
    arrays: dict[str, ArrayLayout] = {
        "sample_id": rows_layout((n,), "int64", ("sample",), rows),
        "label": rows_layout((n,), "int64", ("sample",), rows),
        "content": rows_layout((n, 16), "uint8", ("sample", "byte"), rows),
    }
    for layer, shape in shapes.items():
        axes = [f"{layer} axis {axis}" for axis in range(1, len(shape))]
        for kind in settings["keep"]:
            kept = shape if kind == "maps" else shape[-1:]
            names = ("sample", *axes[: len(kept) - 1], f"{layer} channel")
            arrays[f"{kind}.{layer}"] = rows_layout((n, *kept), settings["dtype"], names, rows)
    return Layout(-(-n // rows), arrays)


def _layout(store: Store, spec: StageSpec) -> Layout:
    model = load_network(store, spec, torch.device("cpu"))
    with torch.inference_mode():
        found = capture_layers(model, spec.place["layers"], first_input(store, spec))
    rows = positions(store, spec.inputs["data"].path, spec.parameters["split"])
    return layers_layout(len(rows), {layer: array.shape[1:] for layer, array in found.items()}, dict(spec.place))


def _partition(work: Work, number: int) -> None:
    """Run the network over a range of positions."""
    stage, spec, device = work.stage, work.stage.spec, choose_device(work.device)
    model = load_network(stage.store, spec, device)
    rows = positions(stage.store, spec.inputs["data"].path, spec.parameters["split"])
    shape = tuple(first_input(stage.store, spec).shape[1:])
    with stage.partition(number) as part:
        start, stop = part.span
        chosen = rows.iloc[start:stop]
        arrays = {name: np.empty((stop - start, *a.shape[1:]), a.dtype) for name, a in stage.layout.arrays.items()}
        arrays["sample_id"][:], arrays["label"][:] = chosen["id"], chosen["label_given"]
        for first, batch in batches_of(spec, chosen["key"].tolist(), shape, str(device)):
            last = first + len(batch.inputs)
            arrays["content"][first:last] = batch.content
            with torch.inference_mode():
                found = capture_layers(model, spec.place["layers"], batch.inputs.to(device))
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


def _size(spec: StageSpec, survey: Survey) -> Size:
    layers, n = list(spec.place["layers"]), survey.data(spec.inputs["data"]).count(spec.parameters["split"])

    def look(model: nn.Module, example: Tensor) -> dict[str, tuple[int, ...]]:
        with torch.inference_mode():
            return {layer: array.shape[1:] for layer, array in capture_layers(model, layers, example).items()}

    shapes = survey.look(spec, f"layers {layers}", look)
    layout = layers_layout(n, shapes, dict(spec.place))
    row, rows = 4 * sum(map(math.prod, shapes.values())), next(iter(layout.arrays.values())).rows
    return Size(layout.n_bytes, row * (2 * rows + 4 * MAX_BATCH))


LAYERS = Step("layers", VERSION, _layout, _partition, _size, summary=slab_summary, network=True, keeps_content=True)
