"""Networks in steps: the identity of a network, and the model on its device."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from configs.cluster import Cluster
from configs.imports import code_digest
from configs.schema import Network, Preprocessing
from storage.documents import Document, Json
from storage.specs import StageSpec
from storage.stages import open_finished
from storage.stores import Store
from storage.tensors import decode_tensors
from tasks.io.digests import file_sha256
from tasks.io.networks import build_model, resolve_preprocessing

if TYPE_CHECKING:
    import torch
    from torch import nn

WEIGHTS = "weights.safetensors"
BUILDER = "builder"  # in place of a file: the function that builds the network returns trained weights


def network_identity(
    name: str, network: Network, training: StageSpec | None
) -> tuple[Document, Document, dict[str, str]]:
    """Return parameters, settings (with the network's name in the config) and digests for a stage with a network."""
    parameters: Document = {
        "model": network.model,
        "arguments": network.arguments,
        "preprocessing": resolve_preprocessing(network.preprocessing).model_dump(mode="json", exclude_defaults=True),
    }
    digests = {"code": code_digest(network.model)} if ":" in network.model else {}
    if training is not None:
        return parameters, {"network": name}, digests
    assert network.weights is not None
    if network.weights == BUILDER:
        digest = built_digest(network.model, json.dumps(network.arguments, sort_keys=True))
        return parameters, {"network": name, "weights": BUILDER}, {**digests, "weights": digest}
    path = absolute_path(network.weights)
    try:
        return parameters, {"network": name, "weights": path}, {**digests, "weights": file_sha256(path)}
    except ValueError as error:
        raise ValueError(f"networks: weights of {network.model}: {error}") from error


def check_weights(network: Network) -> None:
    """Raise ValueError unless the file of a network's weights fits its model, after a trial load."""
    assert network.weights is not None
    path, arguments = absolute_path(network.weights), json.dumps(network.arguments, sort_keys=True)
    _fits(network.model, arguments, path, file_sha256(path))


def check_unchanged(path: str, planned: str) -> None:
    """Raise ValueError unless a file of weights still has the digest of the plan."""
    if file_sha256(path) != planned:
        raise ValueError(
            f"weights {path}: expected the file that the run was planned with, found another; start the run again"
        )


def preprocessing_of(parameters: Mapping[str, Json]) -> Preprocessing:
    """Return the preprocessing of a network's parameters."""
    return TypeAdapter(Preprocessing).validate_python(parameters["preprocessing"])


def choose_device(wanted: str) -> torch.device:
    """Return the device for networks: `auto` takes a GPU where there is one."""
    import torch

    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def check_device(cluster: Cluster) -> None:
    """Raise ValueError where networks should run on a GPU in this process or its children, and there is none."""
    if cluster.device != "cuda" or cluster.kind not in ("serial", "threads", "local"):
        return
    import torch

    if not torch.cuda.is_available():
        raise ValueError("cluster.device: expected a usable GPU for cuda, found none; set it to auto or cpu")


def load_network(store: Store, spec: StageSpec, device: torch.device) -> nn.Module:
    """Return the network of a stage (its parameters' `network`), in evaluation mode.

    Weights come from the training stage among the inputs, or from the file that the settings name.
    """
    import torch

    torch.set_num_threads(1)  # two threads in each of two processes are several times slower than one
    return _KEPT.load(store, spec, str(device))


def build_network(spec: StageSpec) -> tuple[nn.Module, str]:
    """Return the network of a stage on the CPU, and the changes that made its file fit ("" for none).

    A network with a training has fresh weights.
    """
    from tasks.io.weights import load_weights

    network = spec.parameters["network"]
    model = build_model(network["model"], network["arguments"], 0)
    path = spec.place.get("weights", BUILDER)
    return model, "" if path == BUILDER else load_weights(model, str(path))


def filled_network(store: Store, spec: StageSpec) -> nn.Module:
    """Return a new copy of the network of a stage with its weights, on the CPU, in the builder's state."""
    from tasks.io.weights import load_weights

    network, training = spec.parameters["network"], spec.inputs.get("network")
    model = build_model(network["model"], network["arguments"], 0)
    if training is not None:
        snapshot = spec.inputs.get("snapshot")
        if snapshot is None:
            load_packed(model, open_finished(store, training).read_file(WEIGHTS))
        else:
            load_packed(model, stage_weights(store, snapshot))
        return model
    path = str(spec.place["weights"])
    if path == BUILDER:
        _check_built(model, network["model"], spec.digests["weights"])
        return model
    check_unchanged(path, spec.digests["weights"])
    load_weights(model, path)
    return model


@lru_cache(maxsize=16)
def built_digest(model: str, arguments: str) -> str:
    """Return the digest of the weights that a model's builder returns, after a check that they are finite."""
    network = build_model(model, json.loads(arguments), 0)
    _check_values(network, f"model {model}")
    return _state_digest(network)


def _check_built(model: nn.Module, name: str, planned: str) -> None:
    """Raise ValueError unless a builder returned the weights of the plan."""
    if _state_digest(model) != planned:
        raise ValueError(
            f"model {name}: with `weights: builder` expected the same weights at each call, found others than those "
            "that the run was planned with; let the function load them from a file, or draw them from a fixed seed"
        )


def _state_digest(model: nn.Module) -> str:
    """Return `sha256:...` of the state of a network."""
    return f"sha256:{hashlib.sha256(pack_state(model)).hexdigest()}"


def stage_weights(store: Store, stage: StageSpec) -> bytes:
    """Return the weights of a finished snapshot or ticket: the only file of its stage."""
    finished = open_finished(store, stage)
    (name,) = finished.note["files"]
    return finished.read_file(name)


def load_packed(model: nn.Module, data: bytes) -> None:
    """Load the weights that `pack_state` returned into a model, in place."""
    from tasks.io.tensors import unpack_tensors
    from tasks.recording.versions import load_state, read_versions

    load_state(model, unpack_tensors(data), read_versions(decode_tensors(data, WEIGHTS)[1]))


def pack_state(model: nn.Module) -> bytes:
    """Return the state of a network as a file of weights, with the versions that its modules need on loading."""
    from tasks.io.tensors import pack_tensors
    from tasks.recording.versions import version_texts

    return pack_tensors(model.state_dict(), version_texts(model))


def _load(store: Store, spec: StageSpec, device: str) -> nn.Module:
    """Fill and move a network."""

    from tasks.splitting.memory_format import in_fitting_format

    model = filled_network(store, spec)
    model.eval().requires_grad_(False).to(device)
    return in_fitting_format(model, _first_image(store, spec).to(device))


def _first_image(store: Store, spec: StageSpec) -> torch.Tensor:
    """Return the first sample of the data set that a stage's network looks at, (1, C, h, w)."""
    from tasks.steps.common.samples import read_first  # which imports this module

    manifest = spec.inputs["data"] if "data" in spec.inputs else spec.inputs["network"].inputs["data"]
    return read_first(store, manifest, preprocessing_of(spec.parameters["network"]))


class _Kept(threading.local):
    """The networks that a thread caches; hooks see every call, so two threads must not share a network."""

    def __init__(self) -> None:
        self.load = lru_cache(maxsize=2)(_load)


_KEPT = _Kept()


@lru_cache(maxsize=256)
def _fits(model: str, arguments: str, path: str, digest: str) -> None:
    """Raise ValueError unless all weights of a file fit a model and are finite. The digest is in the cache's key."""
    from tasks.io.weights import load_weights

    network = build_model(model, json.loads(arguments), 0)
    load_weights(network, path)
    _check_values(network, f"weights {path}")


def _check_values(network: nn.Module, what: str) -> None:
    """Raise ValueError where a network has a weight that is not finite."""
    for name, value in network.state_dict().items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ValueError(f"{what}: expected finite numbers, found NaN or infinity in {name}")


def absolute_path(path: str) -> str:
    """Return an absolute path, since workers may have another working directory."""
    return str(Path(path).expanduser().absolute())
