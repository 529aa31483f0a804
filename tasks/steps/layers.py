"""The layers stage: any named layers of a network, pooled or whole, for a user's own analysis."""

import numpy as np
import torch

from configs.schema import Network
from storage.documents import Document
from storage.layouts import ArrayLayout, Layout, rows_layout
from storage.specs import StageSpec, without_defaults
from storage.stores import Store
from tasks.capture import capture_layers, check_finite, to_storage_dtype
from tasks.steps.activations import MAX_ROWS, PARTITION_BYTES, batches_of, first_input, slab_summary
from tasks.steps.content import compare_content
from tasks.steps.life import Step, Work, measured
from tasks.steps.manifest import positions
from tasks.steps.networks import choose_device, load_network, network_identity
from tasks.steps.trials import check_layers, example_images

VERSION = 2


def layers_spec(
    name: str, network: Network, manifest: StageSpec, training: StageSpec | None, settings: Document, split: str
) -> StageSpec:
    """Return the spec of named layers' activations on a split; `settings` are layers, keep and dtype."""
    parameters, place, digests = network_identity(network, training)
    inputs = {"data": manifest} if training is None else {"data": manifest, "network": training}
    kept = without_defaults(settings, {"keep": ["pooled"], "dtype": "float32"})
    label = f"{name} {split}"
    return StageSpec(
        "layers",
        VERSION,
        {"network": parameters, "split": split, **kept},
        inputs,
        digests,
        {**place, **settings},
        label,
    )


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
    model, layers = load_network(store, spec, torch.device("cpu")), spec.place["layers"]
    with torch.inference_mode():
        found = capture_layers(model, layers, first_input(store, spec))
    check_layers(model, layers, example_images(store, spec))
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


LAYERS = Step(_layout, _partition, slab_summary, network=True)
