"""The activations stage: maps and pooled features of a layer, and the logits, class by class."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from configs.schema import Network
from storage.documents import Document, Json
from storage.layouts import ArrayLayout, Layout, rows_layout
from storage.specs import StageSpec
from storage.stages import FinishedStage, Stage, find_finished, open_finished
from storage.stores import Store
from tasks.capture import Split, capture_batch, check_finite, split_at, to_storage_dtype
from tasks.io.manifest import check_labels
from tasks.io.sources import open_source
from tasks.steps.life import Step, Work, measured
from tasks.steps.manifest import data_of, positions
from tasks.steps.networks import choose_device, load_network, network_identity, preprocessing_of
from tasks.steps.samples import batches_ahead, read_batch

VERSION = 1
PARTITION_BYTES = 48 * 2**20  # of float32 maps: a partition's memory, and what a crash may cost
MAX_ROWS = 1024
BATCH_BYTES = 16 * 2**20  # of float32 inputs in one forward pass
MAX_BATCH = 64


@dataclass(frozen=True)
class Shapes:
    """Sizes of one sample: input (C, h, w), map (d, h, w), number of logits."""

    inputs: tuple[int, ...]
    maps: tuple[int, ...]
    logits: int


def activations_spec(
    name: str,
    network: Network,
    manifest: StageSpec,
    training: StageSpec | None,
    *,
    layer: str,
    split: str,
    dtype: str,
) -> StageSpec:
    """Return the spec of a layer's activations on a split."""
    parameters, place, digests = network_identity(network, training)
    inputs = {"data": manifest} if training is None else {"data": manifest, "network": training}
    kept: Document = {"network": parameters, "layer": layer, "split": split, "dtype": dtype}
    return StageSpec("activations", VERSION, kept, inputs, digests, place, label=f"{name} {layer} {split}")


def example_input(shape: tuple[int, ...]) -> Tensor:
    """Return one input (1, C, h, w) of noise, to find out how a network goes."""
    return torch.randn((1, *shape), generator=torch.Generator().manual_seed(0))


def probe(model: nn.Module, layer: str, example: Tensor) -> Shapes:
    """Return the sizes of one sample, from one example of the input (1, C, h, w).

    Raises
    ------
    ValueError : the model has no such layer or cannot be split there
    """
    split = split_at(model, layer, example)
    if len(split.shape) != 3:
        raise ValueError(f"layer {layer!r} gives features of shape {split.shape}, not maps; name a convolutional layer")
    return Shapes(tuple(example.shape[1:]), split.shape, split.n_outputs)


def activations_layout(n: int, shapes: Shapes, dtype: str) -> Layout:
    """Return the layout for n samples; a partition is a whole number of chunks or everything."""
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
        "maps": array((h, w, d), dtype, "row", "column", "channel"),
    }
    return Layout(-(-n // rows), arrays)


def peak_bytes(shapes: Shapes, layout: Layout) -> int:
    """Return a bound on a worker's memory beyond its libraries: a partition's arrays and two batches."""
    maps = int(np.prod(shapes.maps)) * 4
    rows = next(iter(layout.arrays.values())).rows
    sample = int(np.prod(shapes.inputs)) * 4
    return 2 * rows * maps + batch_size(shapes) * (3 * sample + 24 * maps)


def batch_size(shapes: Shapes) -> int:
    """Return the samples of one forward pass."""
    return max(1, min(MAX_BATCH, BATCH_BYTES // (4 * int(np.prod(shapes.inputs)))))


def class_slabs(stage: FinishedStage) -> dict[int, tuple[int, int]]:
    """Return the first and past-the-end position of each class, by label."""
    return {int(label): (int(a), int(b)) for label, a, b in stage.summary["classes"]}


def check_same_samples(one: FinishedStage, other: FinishedStage) -> None:
    """Raise ValueError unless two stages hold the same samples in the same order; names the first difference."""
    if one.path == other.path:
        return
    left, right = one.read("sample_id"), other.read("sample_id")
    if len(left) != len(right):
        raise ValueError(f"{one.path} has {len(left)} samples, {other.path} has {len(right)}: they cannot be joined")
    differs = np.flatnonzero(left != right)
    if differs.size:
        at = int(differs[0])
        raise ValueError(f"position {at} is sample {left[at]} in {one.path} but {right[at]} in {other.path}")


def _layout(store: Store, spec: StageSpec) -> Layout:
    rows = positions(store, spec.inputs["data"].path, spec.parameters["split"])
    shapes = _opened(store, spec, "cpu").shapes
    check_labels(rows["label_given"].to_numpy(np.int64), shapes.logits, str(spec.inputs["data"].place["name"]))
    return activations_layout(len(rows), shapes, spec.parameters["dtype"])


def _partition(work: Work, number: int) -> None:
    """Run the network over a range of positions."""
    stage = work.stage
    rows = positions(stage.store, stage.spec.inputs["data"].path, stage.spec.parameters["split"])
    with stage.partition(number) as part:
        start, stop = part.span
        chosen = rows.iloc[start:stop]
        ids = chosen["id"].to_numpy(np.int64)
        arrays = _extract(stage, chosen, str(choose_device(work.device)))
        _compare_content(stage, arrays["content"], start, chosen)
        arrays |= {"sample_id": ids, "label": chosen["label_given"].to_numpy(np.int64)}
        for name in stage.layout.arrays:
            part.write(name, np.ascontiguousarray(arrays[name]))
        part.numbers.update(measured(samples=len(chosen)))


def _extract(stage: Stage, rows: pd.DataFrame, device: str) -> dict[str, NDArray[np.generic]]:
    """Return content digests, logits, pooled features and maps of `rows`."""
    spec, opened = stage.spec, _opened(stage.store, stage.spec, device)
    keys, ids = rows["key"].tolist(), rows["id"].to_numpy(np.int64)
    layout, dtype = stage.layout.arrays, str(spec.parameters["dtype"])
    found = {
        n: np.empty((len(rows), *layout[n].shape[1:]), layout[n].dtype) for n in ("content", "logits", "pooled", "maps")
    }
    source, settings = open_source(data_of(spec.inputs["data"])), preprocessing_of(spec.parameters["network"])
    for start, batch in batches_ahead(source, settings, keys, batch_size(opened.shapes)):
        stop = start + len(batch.inputs)
        if tuple(batch.inputs.shape[1:]) != opened.shapes.inputs:
            raise ValueError(
                f"sample {keys[start]}: its input is {tuple(batch.inputs.shape[1:])}, not {opened.shapes.inputs}"
            )
        maps, logits = capture_batch(opened.split, batch.inputs)
        layer = str(spec.parameters["layer"])
        pooled = maps.mean(axis=(1, 2), dtype=np.float64).astype(np.float32)
        check_finite(pooled, layer, ids[start:stop])  # a NaN or infinity anywhere in a map shows in its mean
        found["content"][start:stop] = batch.content
        found["logits"][start:stop] = logits
        found["pooled"][start:stop] = to_storage_dtype(pooled, dtype, layer, ids[start:stop])
        found["maps"][start:stop] = to_storage_dtype(maps, dtype, layer, ids[start:stop])
    return found


@dataclass(frozen=True)
class _Opened:
    """A network split at a layer, ready on a device."""

    split: Split
    shapes: Shapes


@lru_cache(maxsize=2)
def _open(store: Store, spec: StageSpec, device: str, shape: tuple[int, ...]) -> _Opened:
    """Load and split a network; kept for the next partition in this process."""
    model = load_network(store, spec, torch.device(device))
    example = example_input(shape).to(device)
    shapes = probe(model, spec.parameters["layer"], example)
    return _Opened(split_at(model, spec.parameters["layer"], example), shapes)


def _opened(store: Store, spec: StageSpec, device: str) -> _Opened:
    """Return the network of an activations stage, split at its layer; the first sample gives the input's size."""
    manifest = spec.inputs["data"]
    rows = positions(store, manifest.path, spec.parameters["split"])
    source, settings = open_source(data_of(manifest)), preprocessing_of(spec.parameters["network"])
    first = read_batch(source, settings, rows["key"].tolist()[:1]).inputs
    return _open(store, spec, device, tuple(first.shape[1:]))


def open_split(store: Store, spec: StageSpec, device: torch.device) -> Split:
    """Return the network of a finished activations stage, split at its layer."""
    torch.set_num_threads(1)
    shape = tuple(open_finished(store, spec).summary["input"])
    return _open(store, spec, str(device), shape).split


def _compare_content(stage: Stage, content: NDArray[np.generic], start: int, rows: pd.DataFrame) -> None:
    """Compare the samples' digests with those of an earlier extraction of the same data, if there is one."""
    earlier = _earlier(stage.store, stage.spec.inputs["data"].key, str(stage.spec.parameters["split"]))
    if earlier is None:
        return
    differs = np.flatnonzero((earlier.read("content", start, start + len(rows)) != content).any(axis=1))
    if differs.size:
        row = rows.iloc[int(differs[0])]
        raise ValueError(
            f"sample {row['key']} (id {row['id']}): its content differs from what {earlier.path} was made from; "
            "restore the data, or remove the stages that were made from it"
        )


@lru_cache(maxsize=4)
def _earlier(store: Store, manifest: str, split: str) -> FinishedStage | None:
    """Return a finished activations stage of the same manifest and split."""
    for key in store.names("activations"):
        stage = find_finished(store, f"activations/{key}")
        if stage is not None:
            identity: Document = stage.note["identity"]
            if identity["inputs"]["data"] == manifest and identity["parameters"]["split"] == split:
                return stage
    return None


def _summary(stage: Stage) -> dict[str, Json]:
    """State classes with their slabs, the network's own accuracy, and the size of a map."""
    manifest = open_finished(stage.store, stage.spec.inputs["data"])
    found = manifest.summary["splits"][stage.spec.parameters["split"]]
    ends = np.cumsum([0, *found["counts"]]).tolist()
    classes = [[label, ends[i], ends[i + 1]] for i, label in enumerate(found["labels"])]
    _, h, w, d = stage.layout.arrays["maps"].shape
    shapes = _opened(stage.store, stage.spec, "cpu").shapes
    return {"classes": classes, "map": [h, w, d], "samples": ends[-1], "input": list(shapes.inputs)}


ACTIVATIONS = Step(_layout, _partition, _summary, network=True)
