"""The weights that a training starts from, other than fresh ones: of a file, or of another training of the run."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from configs.schema import Network
from configs.training import StartNetwork
from storage.documents import Document
from storage.specs import StageSpec
from storage.tensors import decode_tensors
from tasks.io.digests import file_sha256
from tasks.io.networks import build_model
from tasks.steps.common.networks import absolute_path

if TYPE_CHECKING:
    from torch import nn

    from tasks.io.wrapped import Reading


def start_identity(name: str, network: Network) -> tuple[Document, dict[str, str]]:
    """Return the path and the digest of the weights from which a training starts, after a trial load.

    Both are empty where it does not start from a file.

    Raises
    ------
    ValueError : the file is missing or does not fit the model; names the config's key
    """
    if network.train is None or not isinstance(network.train.start, str):
        return {}, {}
    path = absolute_path(network.train.start)
    try:
        build_model(network.model, network.arguments, 0)
    except ValueError as error:
        raise ValueError(f"networks.{name}: {error}") from error
    try:
        found = file_sha256(path)
        _tried(network.model, json.dumps(network.arguments, sort_keys=True), path, found)
    except ValueError as error:
        raise ValueError(f"networks.{name}.train.start: {error}") from error
    return {"start": path}, {"start": found}


def check_trained_start(name: str, network: Network, source: Network) -> None:
    """Raise ValueError unless the weights of another network of the config fit as a start, after a trial load."""
    assert network.train is not None
    assert isinstance(network.train.start, StartNetwork)
    ours, theirs = ((one.model, json.dumps(one.arguments, sort_keys=True)) for one in (network, source))
    try:
        _tried_network(*ours, *theirs, network.train.start.network)
    except ValueError as error:
        raise ValueError(f"networks.{name}.train.start.network: {error}") from error


def undone_line(training: StageSpec) -> str:
    """Return a line where a training's file of weights fits only without a tool's additions, else ""."""
    path = training.place["train"]["start"]
    if not isinstance(path, str):
        return ""
    network = training.parameters["network"]
    arguments = json.dumps(network["arguments"], sort_keys=True)
    undone = _tried(network["model"], arguments, path, training.digests["start"])
    return f"networks.{training.place['network']}.train.start: {path} fits by its {undone}" if undone else ""


def load_start(model: nn.Module, path: str) -> str:
    """Load the file of weights from which a training starts into a model with fresh weights, in place.

    All weights must fit, as in `load_weights`, except for the number of classes. The head is the last nn.Linear among
    the model's modules. It keeps its fresh weights where the file's head has another number of outputs.

    Returns
    -------
    the changes that made the file fit, in words; empty where it fits unchanged
    """
    from tasks.io.weights import readings

    return _all_but_another_head(model, readings(model, path), path)


def load_trained(model: nn.Module, data: bytes, what: str) -> None:
    """Load the weights of another training of the run, which `pack_state` returned, as `load_start` does.

    Parameters
    ----------
    data : file of weights
    what : what the weights are, for errors
    """
    from tasks.io.tensors import unpack_tensors
    from tasks.io.wrapped import Reading, state_of, versions_of
    from tasks.recording.versions import read_versions

    present = versions_of(model.state_dict()) or {}
    versions = {**present, **read_versions(decode_tensors(data, what)[1])}
    _all_but_another_head(model, [Reading(state_of(unpack_tensors(data), versions))], what)


def _all_but_another_head(model: nn.Module, given: Sequence[Reading], what: str) -> str:
    """Load the first reading that fits; a head with another number of outputs stays fresh."""
    from torch import nn

    from tasks.io.weights import load_first

    name, head = next(
        ((n, m) for n, m in reversed(list(model.named_modules())) if isinstance(m, nn.Linear)), ("", None)
    )
    weight = next((r.state[f"{name}.weight"] for r in given if f"{name}.weight" in r.state), None) if name else None
    if head is None or weight is None or weight.ndim != 2 or len(weight) == head.out_features:
        return load_first(model, given, what)
    bias, dtype = head.bias is not None, head.weight.dtype
    stand_in = nn.Linear(head.in_features, len(weight), bias=bias, device="meta", dtype=dtype).to_empty(device="cpu")
    model.set_submodule(name, stand_in)  # of the file's size, so that all other weights are loaded and checked
    try:
        return load_first(model, given, what)
    finally:
        model.set_submodule(name, head)


@lru_cache(maxsize=16)
def _tried(model: str, arguments: str, path: str, digest: str) -> str:
    """Return the changes that make a file fit a model; ValueError if it does not fit. The digest is the cache's key."""
    return load_start(build_model(model, json.loads(arguments), 0), path)


@lru_cache(maxsize=16)
def _tried_network(model: str, arguments: str, source: str, given: str, what: str) -> None:
    """Raise ValueError if the fresh weights of a network do not fit another model."""
    from tasks.io.wrapped import Reading

    state = OrderedDict(build_model(source, json.loads(given), 0).state_dict())
    _all_but_another_head(build_model(model, json.loads(arguments), 0), [Reading(state)], f"of network {what}")
