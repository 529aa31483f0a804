"""Samples of a training set by position: kept preprocessed in memory where they fit, else read batch by batch."""

import json
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from storage.specs import StageSpec
from storage.stores import Store
from tasks.io.images import preprocess
from tasks.io.sources import open_source
from tasks.steps.manifest import data_of, positions
from tasks.steps.networks import preprocessing_of
from tasks.training.loop import Fetch


def open_fetch(store: Store, training: StageSpec, split: str, device: torch.device, memory: int) -> Fetch:
    """Return a function from positions of a split to inputs and labels on the device.

    Parameters
    ----------
    training : spec of a training, which says data and preprocessing
    memory : bytes of inputs up to which a split is kept
    """
    manifest = training.inputs["data"]
    rows = positions(store, manifest.path, split)
    labels = torch.from_numpy(rows["label_given"].to_numpy(np.int64, copy=True))
    read = _reader(json.dumps(dict(manifest.place)), json.dumps(dict(training.parameters["network"])))
    first = read.__wrapped__((rows["key"].iloc[0],))
    if first.nbytes * len(rows) <= memory:
        whole = read(tuple(rows["key"]))
        return lambda picked: (whole[torch.from_numpy(picked)].to(device), labels[torch.from_numpy(picked)].to(device))
    keys = rows["key"].to_numpy()
    return lambda picked: (
        read.__wrapped__(tuple(keys[picked])).to(device),
        labels[torch.from_numpy(picked)].to(device),
    )


@lru_cache(maxsize=1)
def _reader(place: str, network: str) -> Any:  # Any: a cached function, whose type has no name
    """Return a function from sample keys to preprocessed inputs that remembers its last two calls."""
    spec = StageSpec("manifest", 0, place=json.loads(place))
    source, settings = open_source(data_of(spec)), preprocessing_of(json.loads(network))

    @lru_cache(maxsize=2)
    def read(keys: tuple[str, ...]) -> Tensor:
        samples = source.read(keys)
        return torch.stack([preprocess(s.image, settings, key) for s, key in zip(samples, keys, strict=True)])

    return read
