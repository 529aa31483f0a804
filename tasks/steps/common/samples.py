"""Batches of samples for steps: read, decoded and preprocessed, one batch ahead of the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from configs.schema import Preprocessing
from storage.specs import StageSpec
from storage.stages import open_finished
from storage.stores import Store
from tasks.io.sources import Source, open_source
from tasks.steps.common.content import check_content, content_of, known_content
from tasks.steps.common.manifest import data_of, positions
from tasks.steps.common.networks import preprocessing_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Inputs (n, C, h, w) float32, or vectors (n, K), and the content digest of each sample, (n, 16) uint8."""

    inputs: Tensor
    content: NDArray[np.uint8]


def read_batch(source: Source, preprocessing: Preprocessing, keys: Sequence[str], threads: int = 1) -> Batch:
    """Read the samples of `keys` and preprocess them in `threads` threads."""
    import torch

    from tasks.io.images import preprocess

    samples = source.read(keys)
    with ThreadPoolExecutor(threads) as workers:
        inputs = list(workers.map(lambda sample, key: preprocess(sample.image, preprocessing, key), samples, keys))
    stacked = stack_inputs(inputs, keys)
    if stacked.ndim == 4:
        # Channels last: convolution and pooling are up to twice as fast, and maps have their stored order.
        stacked = stacked.contiguous(memory_format=torch.channels_last)
    return Batch(stacked, content_of(samples))


def stack_inputs(inputs: Sequence[Tensor], keys: Sequence[str]) -> Tensor:
    """Stack preprocessed samples; raise ValueError that names the first sample of another size."""
    import torch

    for tensor, key in zip(inputs, keys, strict=True):
        if tensor.shape != inputs[0].shape:
            raise ValueError(
                f"sample {key}: expected input {tuple(inputs[0].shape)} as before, found {tuple(tensor.shape)}; "
                "set `resize` and `crop` in the network's preprocessing"
            )
    return torch.stack(list(inputs))


def read_positions(store: Store, spec: StageSpec, split: str | None, at: NDArray[np.int64]) -> Tensor:
    """Return the samples at the positions `at` of a split as a network's input, (n, C, h, w) float32.

    Parameters
    ----------
    spec : a stage with the input `data` and the parameter `network`

    Raises
    ------
    ValueError : a sample has changed since an earlier stage of the same data
    """
    manifest = spec.inputs["data"]
    rows = positions(store, manifest.path, split)
    settings = preprocessing_of(spec.parameters["network"])
    batch = read_batch(open_source(data_of(manifest)), settings, rows["key"].iloc[at].tolist())
    known = known_content(store, spec, split)
    if known is not None:
        check_content(known, batch.content, rows, at)
    return batch.inputs


def batches_ahead(
    source: Source, preprocessing: Preprocessing, keys: Sequence[str], size: int, threads: int = 1
) -> Iterator[tuple[int, Batch]]:
    """Yield (first index, batch); a thread reads the next batch while the caller uses this one."""
    with ThreadPoolExecutor(1) as reader:
        starts = range(0, len(keys), size)
        waiting: list[tuple[int, Future[Batch]]] = []
        for start in starts:
            waiting.append(
                (start, reader.submit(read_batch, source, preprocessing, keys[start : start + size], threads))
            )
            if len(waiting) == 2:
                first, ready = waiting.pop(0)
                yield first, ready.result()
        for first, ready in waiting:
            yield first, ready.result()


def read_first(store: Store, manifest: StageSpec, preprocessing: Preprocessing) -> Tensor:
    """Return the first sample of a data set as a network takes it, (1, C, h, w)."""
    splits = open_finished(store, manifest).summary["splits"]
    rows = positions(store, manifest.path, next(iter(splits)))
    return read_batch(open_source(data_of(manifest)), preprocessing, rows["key"].tolist()[:1]).inputs
