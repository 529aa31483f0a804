"""The activations stage: maps and pooled features of a layer, and the logits, class by class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from configs.schema import Network
from storage.documents import Document, Json
from storage.layouts import ArrayLayout, Layout, rows_layout
from storage.specs import StageSpec, without_defaults
from storage.stages import FinishedStage, Stage, open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.io.manifest import check_labels
from tasks.io.sources import open_source
from tasks.splitting.channels import LayoutError
from tasks.steps.common.content import compare_content
from tasks.steps.common.manifest import data_of, positions
from tasks.steps.common.networks import choose_device, load_network, network_identity, preprocessing_of
from tasks.steps.common.probing import LINE, Tokens, how_read, probe
from tasks.steps.common.samples import Batch, batches_ahead, read_batch
from tasks.steps.common.shapes import Shapes
from tasks.steps.common.survey import check_outputs
from tasks.steps.common.trials import example_images, example_input

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from tasks.capture import Split

VERSION = 2
LAST_MAP = "last-map"
PARTITION_BYTES = 48 * 2**20  # of float32 maps: the memory of a partition, and the most that a crash loses
MAX_ROWS = 1024
BATCH_BYTES = 5 * 2**20  # of float32 inputs in one forward pass; more does not make a CPU faster
MAX_BATCH = 64


def activations_spec(
    name: str,
    network: Network,
    manifest: StageSpec,
    training: StageSpec | None,
    *,
    layer: str,
    split: str,
    dtype: str,
    layout: str | None = None,
    tokens: Tokens = LINE,
    maps: bool = True,
) -> StageSpec:
    """Return the spec of a layer's activations.

    `layout` None stands for the network's own. `tokens` are the positions of a layer of tokens, as in the config.
    `maps` says whether maps are stored.
    """
    parameters, place, digests = network_identity(name, network, training)
    inputs = {"data": manifest} if training is None else {"data": manifest, "network": training}
    kept: Document = {"network": parameters, "layer": layer, "split": split, "dtype": dtype}
    kept |= without_defaults({"layout": layout, "maps": maps}, {"layout": None, "maps": True})
    if layer != LAST_MAP and tokens != LINE:  # the last map never consists of tokens
        kept["tokens"] = tokens if isinstance(tokens, str) else list(tokens)
    return ACTIVATIONS.spec(kept, inputs, digests=digests, place=place, label=f"{name} {layer} {split}")


def activations_layout(n: int, shapes: Shapes, dtype: str, *, maps: bool = True) -> Layout:
    """Return the layout for n samples; a partition is a whole number of chunks, or all samples."""
    d, h, w = shapes.maps
    rows = min(MAX_ROWS, max(32, PARTITION_BYTES // (4 * d * h * w) // 32 * 32))

    def array(shape: tuple[int, ...], kind: str, *axes: str) -> ArrayLayout:
        return rows_layout((n, *shape), kind, ("sample", *axes), rows)

    arrays = {
        "sample_id": array((), "int64"),
        "label": array((), "int64"),
        "content": array((16,), "uint8", "byte"),
        "logits": array((shapes.logits,), "float32", "output"),
        "pooled": array((d,), dtype, "channel"),
    }
    arrays |= {"maps": array((h, w, d), dtype, "row", "column", "channel")} if maps else {}
    if maps and shapes.apart:
        arrays["apart"] = array((shapes.apart, d), dtype, "token", "channel")
    return Layout(-(-n // rows), arrays)


def peak_bytes(shapes: Shapes, layout: Layout) -> int:
    """Return a bound on a worker's memory without libraries: a partition's arrays, two batches, a forward pass."""
    maps = (int(np.prod(shapes.maps)) + shapes.apart * shapes.maps[0]) * 4
    rows = next(iter(layout.arrays.values())).rows
    sample = int(np.prod(shapes.inputs)) * 4
    # Input, output, convolution workspace and the tensors of a branch, each as large as the largest layer.
    return 3 * rows * maps + batch_size(shapes.inputs) * (3 * sample + 6 * 4 * shapes.largest)


def batch_size(shape: tuple[int, ...], device: str = "cpu") -> int:
    """Return the number of samples in one forward pass, for inputs of shape (C, h, w); a GPU takes more."""
    more = 1 if device == "cpu" else 16
    return max(1, min(MAX_BATCH * more, more * BATCH_BYTES // (4 * int(np.prod(shape)))))


def ranges_by_class(stage: FinishedStage) -> dict[int, tuple[int, int]]:
    """Return the class ranges, first and past-the-end position, by label."""
    return {int(label): (int(a), int(b)) for label, a, b in stage.summary["classes"]}


def range_summary(stage: Stage) -> dict[str, Json]:
    """Return the classes of a stage's split with their class ranges, and the number of its samples."""
    found = open_finished(stage.store, stage.spec.inputs["data"]).summary["splits"][stage.spec.parameters["split"]]
    ends = np.cumsum([0, *found["counts"]]).tolist()
    classes = [[label, ends[i], ends[i + 1]] for i, label in enumerate(found["labels"])]
    return {"classes": classes, "samples": ends[-1]}


def check_same_ids(one: FinishedStage, other: FinishedStage) -> None:
    """Raise ValueError unless two stages hold samples of the same ids in the same order; names the first difference."""
    left, right = one.read("sample_id"), other.read("sample_id")
    if len(left) != len(right):
        raise ValueError(f"{other.path}: expected the {len(left)} samples of {one.path}, found {len(right)}")
    if (differs := np.flatnonzero(left != right)).size:
        at = int(differs[0])
        raise ValueError(
            f"{other.path}: expected sample {left[at]} of {one.path} at position {at}, found sample {right[at]}"
        )


def check_same_samples(one: FinishedStage, other: FinishedStage) -> None:
    """Raise ValueError unless two stages hold the same samples in the same order; names the first difference."""
    if one.path == other.path:
        return
    check_same_ids(one, other)
    if (differs := np.flatnonzero((one.read("content") != other.read("content")).any(axis=1))).size:
        sample = one.read("sample_id")[differs[0]]
        raise ValueError(f"{other.path}: expected the content of sample {sample} in {one.path}, found other content")


def _layout(store: Store, spec: StageSpec) -> Layout:
    rows = positions(store, spec.inputs["data"].path, spec.parameters["split"])
    shapes = _opened(store, spec, "cpu").shapes
    manifest = spec.inputs["data"]
    name = str(manifest.place["name"])
    check_labels(rows["label_given"].to_numpy(np.int64), shapes.logits, name, data_of(manifest))
    return activations_layout(len(rows), shapes, spec.parameters["dtype"], maps=spec.parameters.get("maps", True))


def _partition(work: Work, number: int) -> None:
    """Run the network over a range of positions."""
    stage = work.stage
    rows = positions(stage.store, stage.spec.inputs["data"].path, stage.spec.parameters["split"])
    with stage.partition(number) as part:
        start, stop = part.span
        chosen = rows.iloc[start:stop]
        ids = chosen["id"].to_numpy(np.int64)
        arrays = _extract(stage, chosen, str(choose_device(work.device)))
        compare_content(stage, str(stage.spec.parameters["split"]), arrays["content"], start, chosen)
        arrays |= {"sample_id": ids, "label": chosen["label_given"].to_numpy(np.int64)}
        for name in stage.layout.arrays:
            part.write(name, np.ascontiguousarray(arrays[name]))
        part.numbers.update(measured(samples=len(chosen)))


def _extract(stage: Stage, rows: pd.DataFrame, device: str) -> dict[str, NDArray[np.generic]]:
    """Return content digests, logits, pooled features and maps of `rows`."""
    import torch

    from tasks.capture import capture_parts, check_finite, to_storage_dtype

    spec, opened = stage.spec, _opened(stage.store, stage.spec, device)
    keys, ids = rows["key"].tolist(), rows["id"].to_numpy(np.int64)
    layout, dtype = stage.layout.arrays, str(spec.parameters["dtype"])
    computed = {name: array for name, array in layout.items() if name not in ("sample_id", "label")}
    found = {name: np.empty((len(rows), *array.shape[1:]), array.dtype) for name, array in computed.items()}
    for start, batch in batches_of(spec, keys, opened.shapes.inputs, device):
        stop = start + len(batch.inputs)
        maps, apart, logits = capture_parts(opened.split, batch.inputs)
        layer = str(spec.parameters["layer"])
        pooled = torch.from_numpy(maps).mean(dim=(1, 2)).numpy()
        check_finite(pooled, layer, ids[start:stop])  # the mean of a map shows any NaN or infinity in it
        found["content"][start:stop] = batch.content
        found["logits"][start:stop] = logits
        for name, array in {"pooled": pooled, "maps": maps, "apart": apart}.items():
            if name not in found or array is None:
                continue
            narrow = dtype != "float32"  # only a narrow type can lose a finite value
            found[name][start:stop] = to_storage_dtype(array, dtype, layer, ids[start:stop]) if narrow else array
    return found


def batches_of(spec: StageSpec, keys: list[str], shape: tuple[int, ...], device: str) -> Iterator[tuple[int, Batch]]:
    """Yield (first index, batch) of the samples of a stage's data, after checking the inputs' shape (C, h, w)."""
    source, settings = open_source(data_of(spec.inputs["data"])), preprocessing_of(spec.parameters["network"])
    threads = 1 if device == "cpu" else min(8, os.cpu_count() or 1)  # the network uses a CPU's cores
    for start, batch in batches_ahead(source, settings, keys, batch_size(shape, device), threads):
        if tuple(batch.inputs.shape[1:]) != shape:
            raise ValueError(f"sample {keys[start]}: expected input {shape}, found {tuple(batch.inputs.shape[1:])}")
        yield start, batch


@dataclass(frozen=True)
class _Opened:
    """A network split at a layer, ready on a device."""

    split: Split
    shapes: Shapes


@lru_cache(maxsize=2)
def _opened(store: Store, spec: StageSpec, device: str) -> _Opened:
    """Return the network of an activations stage, split at its layer; this process caches it."""
    import torch

    model = load_network(store, spec, torch.device(device))
    images = example_images(store, spec).to(device)
    example = example_input(tuple(images.shape[1:])).to(device)
    return _Opened(*probe(model, spec.parameters["layer"], example, images=images, **how_read(spec)))


def first_input(store: Store, spec: StageSpec) -> Tensor:
    """Return the network's input (1, C, h, w) for the first sample of a stage's split."""
    manifest = spec.inputs["data"]
    rows = positions(store, manifest.path, spec.parameters["split"])
    source, settings = open_source(data_of(manifest)), preprocessing_of(spec.parameters["network"])
    return read_batch(source, settings, rows["key"].tolist()[:1]).inputs


def open_split(store: Store, spec: StageSpec, device: torch.device) -> Split:
    """Return the network of a finished activations stage, split at its layer."""
    import torch

    torch.set_num_threads(1)
    return _opened(store, spec, str(device)).split


def _summary(stage: Stage) -> dict[str, Json]:
    """Return the summary: classes with their ranges, the sizes of a map and an input, the network's own layout."""
    shapes = _opened(stage.store, stage.spec, "cpu").shapes
    d, h, w = shapes.maps
    tokens: dict[str, Json] = {"tokens": shapes.tokens} if "tokens" in stage.spec.parameters and shapes.tokens else {}
    inputs: list[Json] = list(shapes.inputs)
    return {**range_summary(stage), "map": [h, w, d], "input": inputs, "layout": shapes.layout, **tokens}


def map_shapes(spec: StageSpec, survey: Survey) -> Shapes:
    """Return the sizes of the network of an activations stage, after checking its split and its labels."""
    found, layer, how = survey.data(spec.inputs["data"]), spec.parameters["layer"], how_read(spec)
    found.split(spec.parameters["split"])

    def look(model: nn.Module, example: Tensor, images: Tensor) -> Shapes:
        _, shapes = probe(model, layer, example, images=images, **how)
        check_outputs(found, shapes.logits, spec.inputs["data"])
        return shapes

    try:
        return survey.look(spec, f"map {layer} {how}", look)
    except LayoutError as error:
        raise ValueError(f"interpretation.layout: networks.{spec.place['network']}: {error}") from error


def _size(spec: StageSpec, survey: Survey) -> Size:
    shapes, n = map_shapes(spec, survey), survey.data(spec.inputs["data"]).count(spec.parameters["split"])
    layout = activations_layout(n, shapes, spec.parameters["dtype"], maps=spec.parameters.get("maps", True))
    about = shapes.whereabouts(spec.parameters["layer"], spec.place["network"])
    return Size(layout.n_bytes, peak_bytes(shapes, layout), about=about)


ACTIVATIONS = Step(
    "activations", VERSION, _layout, _partition, _size, summary=_summary, network=True, keeps_content=True
)
