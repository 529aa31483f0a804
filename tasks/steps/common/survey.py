"""The survey of a plan: facts about data sets and networks before the run, each found once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from storage.documents import Document, canonical
from storage.notes import read_marker
from storage.results import read_table
from storage.specs import StageSpec
from storage.stages import find_finished
from storage.stores import Store
from tasks.engine.survey import DataSurvey, Found
from tasks.io.manifest import check_labels, read_manifest
from tasks.io.sources import open_source
from tasks.splitting.channels import LayoutError
from tasks.steps.common.manifest import FILE, data_of, survey
from tasks.steps.common.networks import build_network, preprocessing_of
from tasks.steps.common.trials import example_of, read_examples, spread

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass
class PlanSurvey:
    """The survey of a plan: data sets from finished manifests where there are any, networks built one at a time.

    It keeps only the last network. Callers should therefore ask about stages of one network in succession.

    Parameters
    ----------
    store : store of the run, None where there is none yet
    """

    store: Store | None
    _data: dict[str, DataSurvey] = field(default_factory=dict)
    _found: dict[tuple[str, str, str], Any] = field(default_factory=dict)  # Any: the result of a look
    _opened: tuple[str, nn.Module] | None = None
    _read: dict[tuple[str, str], Tensor] = field(default_factory=dict)  # of the open network
    undone: dict[str, str] = field(default_factory=dict)  # by network, the changes that made its file of weights fit

    def data(self, manifest: StageSpec) -> DataSurvey:
        """Return the facts about a data set: from its manifest where that is in the store, else from a listing.

        Raises
        ------
        ValueError : the data set cannot be read; names the config's key
        """
        if manifest.path not in self._data:
            with _names_data(manifest):
                self._data[manifest.path] = _survey_data(self.store, manifest)
        return self._data[manifest.path]

    def rows(self, manifest: StageSpec) -> pd.DataFrame:
        """Return the table of a data set's samples, which is read again and not kept."""
        with _names_data(manifest):
            return _table(self.store, manifest)

    def begun(self, spec: StageSpec) -> Document | None:
        """Return the numbers of a stage's first partition, None before that is made."""
        if self.store is None:
            return None
        try:
            numbers: Document = read_marker(self.store, spec.path, 0)["numbers"]
        except (FileNotFoundError, NotADirectoryError):
            return None
        return numbers

    def look(self, spec: StageSpec, topic: str, look: Callable[[nn.Module, Tensor, Tensor], Found]) -> Found:
        """Return the result of a function on the network of a stage and a few samples of its data; see `Survey`."""
        where, split = network_id(spec), split_of(spec)
        if (where, split, topic) not in self._found:
            try:
                images = self._images(where, split, spec)
                model = self._network(where, spec, images)
                self._found[where, split, topic] = _look_at(model, images, look)
            except LayoutError:
                raise
            except (ValueError, RuntimeError) as error:
                text = " ".join(str(error).split())
                raise ValueError(f"networks.{spec.place['network']}: {text}") from error
        found: Found = self._found[where, split, topic]
        return found

    def blank(self, spec: StageSpec) -> nn.Module:
        """Return the network of a stage on the meta device: shapes only."""
        return blank_network(spec)

    def _network(self, where: str, spec: StageSpec, images: Tensor) -> nn.Module:
        """Return the network of a stage with its weights."""
        from torch.nn.parameter import is_lazy

        from tasks.splitting.memory_format import in_fitting_format

        if self._opened is None or self._opened[0] != where:
            model, self.undone[where] = build_network(spec)
            if lazy := [name for name, value in model.state_dict().items() if is_lazy(value)]:
                raise ValueError(
                    f"expected layers with a size, found {lazy[0]} without one before the first input; "
                    "build the layer with its size, such as nn.Linear in place of nn.LazyLinear"
                )
            if "weights" not in spec.place:
                _fill_zeros(model)
            self._opened = where, in_fitting_format(model.eval().requires_grad_(False), images)
        return self._opened[1]

    def _images(self, where: str, split: str, spec: StageSpec) -> Tensor:
        """Return a few samples of a split as a network's input."""
        if (where, split) not in self._read:
            examples, settings = self.data(spec.inputs["data"]).examples, preprocessing_of(spec.parameters["network"])
            keys = examples[split] if split in examples else next(iter(examples.values()))
            if self._opened is None or self._opened[0] != where:
                self._read.clear()
            self._read[where, split] = read_examples(open_source(data_of(spec.inputs["data"])), settings, keys)
        return self._read[where, split]


def _look_at(model: nn.Module, images: Tensor, look: Callable[[nn.Module, Tensor, Tensor], Found]) -> Found:
    """Return the result of a function on a network; ValueError for tokens that an embedding does not have."""
    from tasks.io.sequence_models import check_sequences
    from tasks.modules.vocabulary import beyond_vocabulary

    check_sequences(model, images)
    try:
        return look(model, example_of(images), images)
    except IndexError as error:
        raise ValueError(beyond_vocabulary(model, images) or str(error)) from error


def network_id(spec: StageSpec) -> str:
    """Return an identity of the network and the data set of a stage, whatever its seed and split."""
    outside = {name: spec.digests[name] for name in ("code", "weights") if name in spec.digests}
    return canonical([dict(spec.parameters["network"]), spec.inputs["data"].key, outside]).decode()


def split_of(spec: StageSpec) -> str:
    """Return the split that a stage reads."""
    train = spec.place.get("train")
    return str(spec.parameters["split"] if "split" in spec.parameters or train is None else train["split"])


def check_outputs(found: DataSurvey, n_outputs: int, manifest: StageSpec) -> None:
    """Raise ValueError where a data set has labels beyond a network's outputs."""
    for split in found.summary["splits"].values():
        check_labels(np.array(split["labels"], np.int64), n_outputs, found.name, data_of(manifest))


def state_bytes(model: nn.Module) -> int:
    """Return the bytes of a model's state."""
    return sum(value.numel() * value.element_size() for value in model.state_dict().values())


def _fill_zeros(model: nn.Module) -> None:
    """Give values to matrices of 0, with which training begins: checks of paths through the network need them."""
    import torch

    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim > 1 and not bool(value.any()):
                value.normal_(0, 0.02, generator=draw)


@contextmanager
def _names_data(manifest: StageSpec) -> Iterator[None]:
    """Name the config's key in an error of reading a data set."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise ValueError(f"data.{manifest.place['name']}: {error}") from error


def _survey_data(store: Store | None, spec: StageSpec) -> DataSurvey:
    """Return the facts about a data set, from its finished manifest where there is one, else from a listing."""
    name, finished = str(spec.place["name"]), None if store is None else find_finished(store, spec.path)
    if finished is not None:
        return DataSurvey(name, finished.summary, _examples(_table(store, spec)))
    data = data_of(spec)
    source = open_source(data)
    table = read_manifest(data, source)
    return DataSurvey(name, survey(data, table, source), _examples(table))


def _table(store: Store | None, spec: StageSpec) -> pd.DataFrame:
    """Return the table of a data set's samples, from its finished manifest where there is one, else from a listing."""
    finished = None if store is None else find_finished(store, spec.path)
    if finished is None:
        return read_manifest(data_of(spec))
    return read_table(finished.read_file(FILE), f"{spec.path}/files/{FILE}")


def _examples(table: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Return the keys of a few samples of each split."""
    return {str(split): tuple(keys.iloc[spread(len(keys))].tolist()) for split, keys in table.groupby("split")["key"]}


def blank_network(spec: StageSpec) -> nn.Module:
    """Return the network of a stage on the meta device: shapes only."""
    return _blank(canonical(spec.parameters["network"]))


@lru_cache(maxsize=16)
def _blank(network: bytes) -> nn.Module:
    """Build a network on the meta device."""
    import json

    import torch

    from tasks.io.networks import build_model

    settings = json.loads(network)
    with torch.device("meta"):
        return build_model(settings["model"], settings["arguments"], 0)
