"""Samples of a training set by position: preprocessed in memory where they fit, else read batch by batch.

Each sample is compared with the known digests of the split, each time that it is read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from configs.schema import Preprocessing
from storage.specs import StageSpec
from storage.stores import Store
from tasks.io.samples import Sample
from tasks.io.sources import Source, open_source
from tasks.steps.common.content import check_content, content_of, known_content
from tasks.steps.common.manifest import data_of, positions
from tasks.steps.common.networks import preprocessing_of
from tasks.steps.common.samples import stack_inputs
from tasks.training.batches import Positions

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tasks.training.loop import Fetch

READ_ALONE = 64  # samples in memory at a time where only their digests are needed


def open_fetch(store: Store, training: StageSpec, split: str, device: torch.device, memory: int) -> Fetch:
    """Return a function from positions of a split to inputs and labels on the device.

    Parameters
    ----------
    training : spec of a training, with its data and preprocessing
    memory : largest split in bytes of inputs that stays in memory

    Raises
    ------
    ValueError : a sample has changed since the training or an earlier stage; the returned function raises it too
    """
    import torch

    rows = positions(store, training.inputs["data"].path, split)
    labels = torch.from_numpy(rows["label_given"].to_numpy(np.int64, copy=True))
    reader, known = _reader_of(training), known_content(store, training, split)
    keys = rows["key"].to_numpy()

    def read(picked: Positions) -> Tensor:
        inputs, content = reader.read(keys[picked].tolist())
        if known is not None:
            check_content(known, content, rows, picked)
        return inputs

    if reader.fits(tuple(keys), memory):
        whole, content = reader.read_whole(tuple(keys))
        if known is not None:
            check_content(known, content, rows, np.arange(len(rows)))
        return lambda picked: (whole[torch.from_numpy(picked)].to(device), labels[torch.from_numpy(picked)].to(device))
    return lambda picked: (read(picked).to(device), labels[torch.from_numpy(picked)].to(device))


def read_content(store: Store, training: StageSpec, split: str, memory: int) -> NDArray[np.uint8]:
    """Read all samples of a split once and return their digests by position, (n, 16).

    A split that `open_fetch` keeps in the same `memory` is read once for both.
    """
    keys, reader = tuple(positions(store, training.inputs["data"].path, split)["key"]), _reader_of(training)
    if reader.fits(keys, memory):
        return reader.read_whole(keys)[1]
    starts = range(0, len(keys), READ_ALONE)
    return np.concatenate([content_of(reader.samples(keys[start : start + READ_ALONE])) for start in starts])


@dataclass(frozen=True)
class _Reader:
    """A reader of samples by key, with a cache of two whole splits."""

    source: Source
    settings: Preprocessing

    def samples(self, keys: Sequence[str]) -> list[Sample]:
        """Return decoded samples."""
        return self.source.read(keys)

    def read(self, keys: Sequence[str]) -> tuple[Tensor, NDArray[np.uint8]]:
        """Return preprocessed inputs and digests of samples."""
        from tasks.io.images import preprocess

        samples = self.samples(keys)
        inputs = [preprocess(s.image, self.settings, key) for s, key in zip(samples, keys, strict=True)]
        return stack_inputs(inputs, keys), content_of(samples)

    @cached_property
    def read_whole(self) -> Callable[[tuple[str, ...]], tuple[Tensor, NDArray[np.uint8]]]:
        """The function `read` with a cache of its last two calls."""
        return lru_cache(maxsize=2)(self.read)

    def fits(self, keys: tuple[str, ...], memory: int) -> bool:
        """Say whether the inputs of all `keys` take at most `memory` bytes, if all are as large as the first."""
        return self.read(keys[:1])[0].nbytes * len(keys) <= memory


def _reader_of(training: StageSpec) -> _Reader:
    """Return the reader of a training's data."""
    place, network = training.inputs["data"].place, training.parameters["network"]
    return _open_reader(json.dumps(dict(place)), json.dumps(dict(network)))


@lru_cache(maxsize=1)
def _open_reader(place: str, network: str) -> _Reader:
    """Open a source; this process caches it."""
    spec = StageSpec("manifest", 0, place=json.loads(place))
    return _Reader(open_source(data_of(spec)), preprocessing_of(json.loads(network)))
