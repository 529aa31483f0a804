"""What a plan must know before anything runs: data sets and networks, each looked at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from storage.documents import canonical
from storage.results import read_table
from storage.specs import StageSpec
from storage.stages import find_finished
from storage.stores import Store
from tasks.engine.survey import DataSurvey, Found
from tasks.steps.common.manifest import FILE, data_of, survey

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass
class PlanSurvey:
    """The survey of a plan: data sets from finished manifests where there are any, networks built one at a time.

    Only the network that was asked about last is kept, so stages of one network are best asked about one after the
    other.

    Parameters
    ----------
    store : the run's store, None where there is none yet
    """

    store: Store | None
    _data: dict[str, DataSurvey] = field(default_factory=dict)
    _found: dict[tuple[str, str], Any] = field(default_factory=dict)  # Any: what a look finds
    _opened: tuple[str, nn.Module, Tensor] | None = None

    def data(self, manifest: StageSpec) -> DataSurvey:
        """Return what a data set holds: from its manifest where that is in the store, else from a listing.

        Raises
        ------
        ValueError : the data set cannot be read; names the config's key
        """
        if manifest.path not in self._data:
            try:
                self._data[manifest.path] = _survey_data(self.store, manifest)
            except (ValueError, OSError) as error:
                raise ValueError(f"data.{manifest.place['name']}: {error}") from error
        return self._data[manifest.path]

    def look(self, spec: StageSpec, topic: str, look: Callable[[nn.Module, Tensor], Found]) -> Found:
        """Return what a function finds in the network of a stage, from one sample of its data; see `Survey`."""
        where = network_id(spec)
        if (where, topic) not in self._found:
            try:
                self._found[where, topic] = look(*self._open(where, spec))
            except (ValueError, RuntimeError) as error:
                text = " ".join(str(error).split())
                raise ValueError(f"networks.{spec.place['network']}: {text}") from error
        found: Found = self._found[where, topic]
        return found

    def blank(self, spec: StageSpec) -> nn.Module:
        """Return the network of a stage without storage: shapes only."""
        return _blank(canonical(spec.parameters["network"]))

    def _open(self, where: str, spec: StageSpec) -> tuple[nn.Module, Tensor]:
        """Return the network of a stage with its weights, and an input of the size that the data give."""
        from tasks.io.sources import open_source
        from tasks.steps.common.activations import example_input
        from tasks.steps.common.networks import build_network, preprocessing_of
        from tasks.steps.common.samples import read_batch

        if self._opened is None or self._opened[0] != where:
            manifest = spec.inputs["data"]
            settings, key = preprocessing_of(spec.parameters["network"]), self.data(manifest).example
            batch = read_batch(open_source(data_of(manifest)), settings, [key])
            model = build_network(spec).eval().requires_grad_(False)
            self._opened = (where, model, example_input(tuple(batch.inputs.shape[1:])))
        _, model, example = self._opened
        return model, example


def network_id(spec: StageSpec) -> str:
    """Return what tells the network and the data set of a stage apart from others, whatever its seed and split."""
    outside = {name: spec.digests[name] for name in ("code", "weights") if name in spec.digests}
    return canonical([dict(spec.parameters["network"]), spec.inputs["data"].key, outside]).decode()


def check_outputs(found: DataSurvey, n_outputs: int) -> None:
    """Raise ValueError where a data set has labels beyond a network's outputs."""
    from tasks.io.manifest import check_labels

    for split in found.summary["splits"].values():
        check_labels(np.array(split["labels"], np.int64), n_outputs, found.name)


def state_bytes(model: nn.Module) -> int:
    """Return the bytes of a model's state."""
    return sum(value.numel() * value.element_size() for value in model.state_dict().values())


def _survey_data(store: Store | None, spec: StageSpec) -> DataSurvey:
    """Return what a data set holds; a finished manifest is read, so that nothing is listed again."""
    name, finished = str(spec.place["name"]), None if store is None else find_finished(store, spec.path)
    if finished is not None:
        table = read_table(finished.read_file(FILE), f"{spec.path}/files/{FILE}")
        return DataSurvey(name, finished.summary, str(table["key"].iloc[0]))
    from tasks.io.manifest import read_manifest
    from tasks.io.sources import open_source

    data = data_of(spec)
    source = open_source(data)
    table = read_manifest(data, source)
    return DataSurvey(name, survey(data, table, source), str(table["key"].iloc[0]))


@lru_cache(maxsize=16)
def _blank(network: bytes) -> nn.Module:
    """Build a network on the meta device."""
    import json

    import torch

    from tasks.io.networks import build_model

    settings = json.loads(network)
    with torch.device("meta"):
        return build_model(settings["model"], settings["arguments"], 0)
