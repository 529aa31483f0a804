"""The penultimate stage: the inputs of a network's head and its logits on a split, class by class."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from configs.schema import Network
from storage.documents import Document, Json
from storage.layouts import Layout, rows_layout
from storage.specs import StageSpec, without_defaults
from storage.stages import FinishedStage, Stage
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import DataSurvey, Survey
from tasks.io.manifest import check_labels
from tasks.steps.common.activations import MAX_ROWS, batch_size, batches_of, range_summary
from tasks.steps.common.content import compare_content
from tasks.steps.common.manifest import data_of, positions
from tasks.steps.common.networks import choose_device, load_network, network_identity
from tasks.steps.common.survey import check_outputs
from tasks.steps.common.trials import check_logits, example_images, example_input

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from tasks.capture import Split

VERSION = 2

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class HeadShapes:
    """Sizes of one sample: input (C, h, w), features of the head, outputs, and the largest module's output.

    `channels` counts those of the last map if the network's training has gates on them; else it is 0.
    """

    inputs: tuple[int, ...]
    features: int
    outputs: int
    largest: int
    channels: int


def penultimate_spec(
    name: str, network: Network, manifest: StageSpec, training: StageSpec | None, *, split: str, dtype: str
) -> StageSpec:
    """Return the spec of the inputs of a network's head on a split."""
    parameters, place, digests = network_identity(name, network, training)
    inputs = {"data": manifest} if training is None else {"data": manifest, "network": training}
    kept: Document = {"network": parameters, "split": split, **without_defaults({"dtype": dtype}, {"dtype": "float32"})}
    place["dtype"] = dtype
    return PENULTIMATES.spec(kept, inputs, digests=digests, place=place, label=f"{name} {split}")


def penultimate_layout(n: int, n_features: int, n_outputs: int, dtype: str) -> Layout:
    """Return the layout of a penultimate stage for n samples."""
    arrays = {
        "sample_id": rows_layout((n,), "int64", ("sample",), MAX_ROWS),
        "label": rows_layout((n,), "int64", ("sample",), MAX_ROWS),
        "content": rows_layout((n, 16), "uint8", ("sample", "byte"), MAX_ROWS),
        "logits": rows_layout((n, n_outputs), "float32", ("sample", "output"), MAX_ROWS),
        "features": rows_layout((n, n_features), dtype, ("sample", "feature"), MAX_ROWS),
    }
    return Layout(-(-n // MAX_ROWS), arrays)


def open_head(store: Store, spec: StageSpec, device: torch.device) -> nn.Linear:
    """Return the head of the network of a penultimate stage; callers must not change it."""
    return _opened(store, spec, str(device)).head


def head_inputs(store: Store, spec: StageSpec, inputs: Tensor, device: torch.device) -> Floats:
    """Return what the head of a penultimate stage's network takes, (n, d), for inputs (n, C, h, w)."""
    from tasks.capture import capture_batch

    features, _ = capture_batch(_opened(store, spec, str(device)).split, inputs)
    return features.astype(np.float32, copy=False)


def read_features(stage: FinishedStage, start: int, stop: int) -> Floats:
    """Return the features of a range of positions, (n, d) float32."""
    return stage.read("features", start, stop).astype(np.float32, copy=False)


@dataclass(frozen=True)
class _Opened:
    """A network on a device, cut before its head; `shape` is the shape of one input."""

    split: Split
    head: nn.Linear
    shape: tuple[int, ...]


@lru_cache(maxsize=2)
def _opened(store: Store, spec: StageSpec, device: str) -> _Opened:
    """Return the network of a stage, cut before its head; this process keeps it for the next partition."""
    import torch

    from tasks.capture import PENULTIMATE, split_at
    from tasks.decomposition.head import find_head

    model, images = load_network(store, spec, torch.device(device)), example_images(store, spec).to(device)
    shape = tuple(images.shape[1:])
    example = example_input(shape).to(device)
    head = find_head(model, torch.cat([example, images])).module
    return _Opened(split_at(model, PENULTIMATE, example, images=images), head, shape)


def _layout(store: Store, spec: StageSpec) -> Layout:
    rows = positions(store, spec.inputs["data"].path, spec.parameters["split"])
    head = _opened(store, spec, "cpu").head
    manifest = spec.inputs["data"]
    name = str(manifest.place["name"])
    check_labels(rows["label_given"].to_numpy(np.int64), head.out_features, name, data_of(manifest))
    return penultimate_layout(len(rows), head.in_features, head.out_features, str(spec.place["dtype"]))


def _partition(work: Work, number: int) -> None:
    """Run the network over a range of positions."""
    stage = work.stage
    rows = positions(stage.store, stage.spec.inputs["data"].path, stage.spec.parameters["split"])
    with stage.partition(number) as part:
        start, stop = part.span
        chosen = rows.iloc[start:stop]
        arrays = _extract(stage, chosen, str(choose_device(work.device)))
        compare_content(stage, str(stage.spec.parameters["split"]), arrays["content"], start, chosen)
        for name, array in arrays.items():
            part.write(name, array)
        part.numbers.update(measured(samples=len(chosen)))


def _extract(stage: Stage, rows: pd.DataFrame, device: str) -> dict[str, NDArray[np.generic]]:
    """Return all arrays for the samples in `rows`."""
    from tasks.capture import PENULTIMATE, capture_batch, check_finite, to_storage_dtype

    opened, ids = _opened(stage.store, stage.spec, device), rows["id"].to_numpy(np.int64)
    arrays = {name: np.empty((len(rows), *a.shape[1:]), a.dtype) for name, a in stage.layout.arrays.items()}
    arrays["sample_id"][:], arrays["label"][:] = ids, rows["label_given"]
    for first, batch in batches_of(stage.spec, rows["key"].tolist(), opened.shape, device):
        part = slice(first, first + len(batch.inputs))
        features, logits = capture_batch(opened.split, batch.inputs)
        check_finite(logits, "logits", ids[part])
        arrays["content"][part], arrays["logits"][part] = batch.content, logits
        arrays["features"][part] = to_storage_dtype(features, str(arrays["features"].dtype), PENULTIMATE, ids[part])
    return dict(arrays)


def _summary(stage: Stage) -> dict[str, Json]:
    """Return classes with their class ranges, and the sizes of the head."""
    head = _opened(stage.store, stage.spec, "cpu").head
    return {**range_summary(stage), "features": head.in_features, "outputs": head.out_features}


def head_shapes(spec: StageSpec, survey: Survey) -> HeadShapes:
    """Return the sizes of a network before its head; `spec` is a stage that runs the network over a data set.

    Raises
    ------
    ValueError : the network does not have a linear head; labels exceed the outputs; or the last map, which gates need,
        is missing
    """
    training, found = spec.inputs.get("network", spec), survey.data(spec.inputs["data"])
    gated = training.place.get("train", {}).get("gates") is not None
    return survey.look(spec, f"head, gated {gated}", partial(_look, spec, found, gated))


def chosen_head(spec: StageSpec, survey: Survey, key: str) -> HeadShapes:
    """Return the head of a stage's features; raise ValueError if the parameter `key` exceeds their number."""
    features = spec.inputs["features"]
    head, k = head_shapes(features, survey), int(spec.parameters.get(key, 1))
    if k > head.features:
        raise ValueError(
            f"decomposition.k2: expected at most the {head.features} features of {features.label}, found {k}"
        )
    return head


def _look(
    spec: StageSpec, found: DataSurvey, gated: bool, model: nn.Module, example: torch.Tensor, images: torch.Tensor
) -> HeadShapes:
    """Return the sizes of a network before its head."""
    import torch

    from tasks.capture import PENULTIMATE, split_at
    from tasks.decomposition.head import find_head
    from tasks.splitting.outputs import largest_output
    from tasks.training.gates import find_gated_map

    check_logits(model, images)
    head = find_head(model, torch.cat([example, images])).module
    split_at(model, PENULTIMATE, example, images=images)
    channels = find_gated_map(model, example, images=images).n_channels if gated else 0
    check_outputs(found, head.out_features, spec.inputs["data"])
    largest = largest_output(model, example)
    return HeadShapes(tuple(example.shape[1:]), head.in_features, head.out_features, largest, channels)


def _size(spec: StageSpec, survey: Survey) -> Size:
    n, head = survey.data(spec.inputs["data"]).count(spec.parameters["split"]), head_shapes(spec, survey)
    row = 4 * (head.features + head.outputs) + 32
    sample = 4 * head.inputs[0] * head.inputs[1] * head.inputs[2]
    return Size(n * row, MAX_ROWS * row + batch_size(head.inputs) * (3 * sample + 6 * 4 * head.largest))


PENULTIMATES = Step(
    "penultimate", VERSION, _layout, _partition, _size, summary=_summary, network=True, keeps_content=True
)
