"""The penultimate stage: the inputs of a network's head on a split, and its logits, class by class."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from configs.schema import Network
from storage.documents import Document, Json
from storage.layouts import Layout, rows_layout
from storage.specs import StageSpec, without_defaults
from storage.stages import FinishedStage, Stage
from storage.stores import Store
from tasks.capture import PENULTIMATE, Split, capture_batch, check_finite, split_at, to_storage_dtype
from tasks.decomposition.head import find_head
from tasks.io.manifest import check_labels
from tasks.steps.activations import MAX_ROWS, batches_of, slab_summary
from tasks.steps.content import compare_content
from tasks.steps.life import Step, Work, measured
from tasks.steps.manifest import positions
from tasks.steps.networks import choose_device, load_network, network_identity
from tasks.steps.trials import example_images, example_input

VERSION = 2

Floats = NDArray[np.float32]


def penultimate_spec(
    name: str, network: Network, manifest: StageSpec, training: StageSpec | None, *, split: str, dtype: str
) -> StageSpec:
    """Return the spec of the inputs of a network's head on a split."""
    parameters, place, digests = network_identity(network, training)
    inputs = {"data": manifest} if training is None else {"data": manifest, "network": training}
    kept: Document = {"network": parameters, "split": split, **without_defaults({"dtype": dtype}, {"dtype": "float32"})}
    return StageSpec("penultimate", VERSION, kept, inputs, digests, {**place, "dtype": dtype}, f"{name} {split}")


def penultimate_layout(n: int, n_features: int, n_outputs: int, dtype: str) -> Layout:
    """Return the layout for n samples."""
    arrays = {
        "sample_id": rows_layout((n,), "int64", ("sample",), MAX_ROWS),
        "label": rows_layout((n,), "int64", ("sample",), MAX_ROWS),
        "content": rows_layout((n, 16), "uint8", ("sample", "byte"), MAX_ROWS),
        "logits": rows_layout((n, n_outputs), "float32", ("sample", "output"), MAX_ROWS),
        "features": rows_layout((n, n_features), dtype, ("sample", "feature"), MAX_ROWS),
    }
    return Layout(-(-n // MAX_ROWS), arrays)


def open_head(store: Store, spec: StageSpec, device: torch.device) -> nn.Linear:
    """Return the head of the network of a penultimate stage; not to be changed."""
    return _opened(store, spec, str(device)).head


def read_features(stage: FinishedStage, start: int, stop: int) -> Floats:
    """Return the features of a range of positions, (n, d) float32."""
    return stage.read("features", start, stop).astype(np.float32, copy=False)


@dataclass(frozen=True)
class _Opened:
    """A network cut before its head, ready on a device; `shape` is that of one input."""

    split: Split
    head: nn.Linear
    shape: tuple[int, ...]


@lru_cache(maxsize=2)
def _opened(store: Store, spec: StageSpec, device: str) -> _Opened:
    """Return the network of a stage, cut before its head; kept for the next partition in this process."""
    model, images = load_network(store, spec, torch.device(device)), example_images(store, spec).to(device)
    shape = tuple(images.shape[1:])
    example = example_input(shape).to(device)
    return _Opened(split_at(model, PENULTIMATE, example, images=images), find_head(model, example).module, shape)


def _layout(store: Store, spec: StageSpec) -> Layout:
    rows = positions(store, spec.inputs["data"].path, spec.parameters["split"])
    head = _opened(store, spec, "cpu").head
    name = str(spec.inputs["data"].place["name"])
    check_labels(rows["label_given"].to_numpy(np.int64), head.out_features, name)
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
    """Return all arrays of `rows`."""
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
    """State classes with their slabs, and the sizes of the head."""
    head = _opened(stage.store, stage.spec, "cpu").head
    return {**slab_summary(stage), "features": head.in_features, "outputs": head.out_features}


PENULTIMATES = Step(_layout, _partition, _summary, network=True)
