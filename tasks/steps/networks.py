"""Networks in steps: what identifies one, and the model itself, ready on its device."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import torch
from pydantic import TypeAdapter
from torch import nn

from configs.cluster import Cluster
from configs.schema import Network, Preprocessing
from storage.documents import Document, Json
from storage.specs import StageSpec
from storage.stages import open_finished
from storage.stores import Store
from tasks.io.imports import code_digest
from tasks.io.networks import build_model, resolve_preprocessing
from tasks.io.tensors import unpack_tensors
from tasks.io.weights import load_weights, weights_digest

WEIGHTS = "weights.safetensors"


def network_identity(network: Network, training: StageSpec | None) -> tuple[Document, Document, dict[str, str]]:
    """Return what a stage that uses a network has: parameters, place and digests."""
    parameters: Document = {
        "model": network.model,
        "arguments": network.arguments,
        "preprocessing": resolve_preprocessing(network.preprocessing).model_dump(mode="json", exclude_defaults=True),
    }
    digests = {"code": code_digest(network.model)} if ":" in network.model else {}
    if training is not None:
        return parameters, {}, digests
    assert network.weights is not None
    path = str(Path(network.weights).expanduser().absolute())  # workers may have another working directory
    try:
        return parameters, {"weights": path}, {**digests, "weights": weights_digest(path)}
    except ValueError as error:
        raise ValueError(f"networks: weights of {network.model}: {error}") from error


def preprocessing_of(parameters: Mapping[str, Json]) -> Preprocessing:
    """Return the preprocessing of a network's parameters."""
    return TypeAdapter(Preprocessing).validate_python(parameters["preprocessing"])


def choose_device(wanted: str) -> torch.device:
    """Return the device for networks: `auto` takes a GPU where there is one."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def check_device(cluster: Cluster) -> None:
    """Raise ValueError where networks shall run on a GPU in this process or its children, and there is none."""
    if cluster.device == "cuda" and cluster.kind in ("serial", "threads", "local") and not torch.cuda.is_available():
        raise ValueError("cluster.device: cuda, but this machine has no usable GPU; set it to auto or cpu")


def load_network(store: Store, spec: StageSpec, device: torch.device) -> nn.Module:
    """Return the network of a stage (its parameters' `network`), in evaluation mode.

    Weights come from the training stage among the inputs, or from the file that the place names.
    """
    torch.set_num_threads(1)  # two threads in each of two processes are several times slower than one
    return _load(store, spec, str(device))


@lru_cache(maxsize=2)
def _load(store: Store, spec: StageSpec, device: str) -> nn.Module:
    """Build, fill and move a network; kept for the next partition in this process."""
    network, training = spec.parameters["network"], spec.inputs.get("network")
    model = build_model(network["model"], network["arguments"], 0)
    if training is not None:
        model.load_state_dict(unpack_tensors(open_finished(store, training).read_file(WEIGHTS)))
    else:
        path = str(spec.place["weights"])
        if weights_digest(path) != spec.digests["weights"]:
            raise ValueError(f"weights {path}: the file has changed since the run was planned; start the run again")
        load_weights(model, path)
    model.eval().requires_grad_(False).to(device)
    settled: nn.Module = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    return settled
