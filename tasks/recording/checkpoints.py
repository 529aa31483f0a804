"""Checkpoints: the full state of a training for a bitwise resume, as one safetensors file.

Keys: model.<name in the state dict>, random.cpu, random.cuda.<index>, and the keys of `tasks.recording.optimizers`. The
text `optimizer` is the JSON of that module. The text `versions`, if any, is that of `tasks.recording.versions`.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from storage.documents import DamagedError, canonical, digest
from storage.finished import ABSENT
from storage.stores import Store
from storage.tensors import RawTensor, decode_tensors, encode_tensors
from tasks.recording.generators import generator_states, restore_generators
from tasks.recording.optimizers import SETTING, load_optimizer, pack_optimizer
from tasks.recording.settings import DTYPES, NAMES, decode_setting
from tasks.recording.versions import VERSIONS, current_versions, load_state, version_texts

MODEL, RANDOM = "model.", "random."
Addressed = Callable[[str, bytes], str]  # takes a name with the field `digest`: `Partition.write_addressed`


def pack_checkpoint(model: nn.Module, optimizer: torch.optim.Optimizer, *, generators: bool = True) -> bytes:
    """Return the state of model and optimiser as bytes; the same state gives the same bytes.

    Parameters
    ----------
    generators : whether to keep the states of torch's random generators, of the CPU and of the model's GPUs

    Raises
    ------
    ValueError : a value cannot be restored exactly; the message names it
    """
    tensors = {f"{MODEL}{name}": value for name, value in model.state_dict().items()}
    document, kept = pack_optimizer(optimizer)
    if generators:
        tensors |= {f"{RANDOM}{name}": state for name, state in generator_states(model).items()}
    raw = {name: _raw(name, value) for name, value in (tensors | kept).items()}
    return encode_tensors(raw, {"optimizer": canonical(document).decode(), **version_texts(model)})


def restore_checkpoint(
    store: Store, file: str, expected: str, model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Load a file of an archive that is not finished; DamagedError unless it has the expected digest."""
    try:
        data = store.read(file)
    except ABSENT:
        raise DamagedError(f"{file}: expected the archive's last checkpoint, found none") from None
    if digest(data) != expected:
        raise DamagedError(f"{file}: expected the digest that was written, found another")
    load_checkpoint(data, model, optimizer, file)


def load_checkpoint(data: bytes, model: nn.Module, optimizer: torch.optim.Optimizer, what: str) -> None:
    """Restore model, optimiser and, if stored, random generators from a checkpoint, in place.

    Raises
    ------
    DamagedError : not a checkpoint; the message begins with `what`
    ValueError : the optimiser has other groups than the saved optimiser
    """
    raw, texts = decode_tensors(data, what)
    tensors = {name: _tensor(value) for name, value in raw.items()}
    load_state(model, _below(tensors, MODEL), current_versions(model))
    try:
        load_optimizer(optimizer, json.loads(texts["optimizer"]), tensors)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None
    restore_generators(_below(tensors, RANDOM))


def group_settings(data: bytes, what: str) -> list[dict[str, Any]]:  # Any: an optimiser's own
    """Return the settings of the optimiser's groups of parameters in a checkpoint; `what` as in `load_checkpoint`."""
    raw, texts = decode_tensors(data, what)
    document = json.loads(texts["optimizer"])
    tensors = _below({name: _tensor(value) for name, value in raw.items()}, SETTING)
    return [{key: decode_setting(node, tensors) for key, node in group.items()} for group in document["groups"]]


def checkpoint_weights(data: bytes, what: str) -> dict[str, Tensor]:
    """Return the model's state dict of a checkpoint; other data raise DamagedError, which begins with `what`."""
    raw, _ = decode_tensors(data, what)
    return _below({name: _tensor(value) for name, value in raw.items()}, MODEL)


def checkpoint_versions(data: bytes, what: str) -> dict[str, str]:
    """Return by name the text that a file of a checkpoint's weights alone needs; errors as in `checkpoint_weights`."""
    return {name: text for name, text in decode_tensors(data, what)[1].items() if name == VERSIONS}


def write_checkpoint(write: Addressed, number: int, data: bytes) -> str:
    """Write the checkpoint after segment `number`, and return its name, which depends on its content."""
    return write(f"checkpoint-{number:06d}-{{digest}}.safetensors", data)


def write_initial(write: Addressed, data: bytes) -> str:
    """Write the checkpoint before step 0, and return its name."""
    return write("initial-{digest}.safetensors", data)


def _raw(name: str, value: Any) -> RawTensor:  # Any: state dicts may hold anything
    """Return a tensor in its stored form."""
    if not isinstance(value, Tensor) or value.dtype not in NAMES:
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{name}: expected a tensor of {', '.join(DTYPES)}, found a {kind}")
    flat = value.detach().cpu().contiguous().reshape(-1)
    return RawTensor(NAMES[value.dtype], tuple(value.shape), flat.view(torch.uint8).numpy())


def _tensor(raw: RawTensor) -> Tensor:
    """Return a stored tensor, on the CPU."""
    return torch.from_numpy(np.array(raw.data)).view(DTYPES[raw.dtype]).reshape(raw.shape)


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors with names that begin with `prefix`, by the names without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
