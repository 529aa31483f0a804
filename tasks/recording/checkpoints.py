"""Checkpoints: all that a training needs to go on bitwise, as one safetensors file.

Keys: model.<name in the state dict>, optimizer.<index of the parameter>.<name>, random.cpu, random.cuda.<index>.
The text `versions`, where there is one, is that of `tasks.recording.versions`. The text `optimizer` is JSON: the
settings of each group of parameters, state that is no tensor, and, of parameters that are not on the CPU, `host`: the
names of those of their state that are.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from storage.documents import canonical, digest
from storage.tensors import RawTensor, decode_tensors, encode_tensors
from storage.updates.chunks import Write
from tasks.recording.versions import VERSIONS, current_versions, load_state, version_texts

MODEL, OPTIMIZER, RANDOM = "model.", "optimizer.", "random."
NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
DTYPES = {name: dtype for dtype, name in NAMES.items()}

Settings = dict[str, Any]  # Any: whatever an optimiser keeps, JSON


def pack_checkpoint(model: nn.Module, optimizer: torch.optim.Optimizer, *, generators: bool = True) -> bytes:
    """Return the state of model and optimiser: the same state, the same bytes.

    Parameters
    ----------
    generators : the states of torch's random numbers too, of the CPU and of the GPUs that the model is on

    Raises
    ------
    ValueError : something that is neither a tensor nor JSON, or a dtype that the format lacks
    """
    tensors = {f"{MODEL}{name}": value for name, value in model.state_dict().items()}
    others: dict[str, Settings] = {}
    host, parameters = [], _parameters(optimizer)
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if not isinstance(value, Tensor):
                others.setdefault(str(index), {})[key] = value
                continue
            tensors[f"{OPTIMIZER}{index}.{key}"] = value
            if value.device.type == "cpu" != parameters[index].device.type:  # counts of steps, most often
                host.append(f"{index}.{key}")
    if generators:
        tensors |= {f"{RANDOM}{name}": state for name, state in _generators(model)}
    groups = [_settings(group) for group in optimizer.param_groups]
    try:
        text = canonical({"groups": groups, "state": others, **({"host": host} if host else {})}).decode()
    except TypeError as error:
        raise ValueError(f"the optimiser keeps something that is neither a tensor nor a number: {error}") from None
    texts = {"optimizer": text, **version_texts(model)}
    return encode_tensors({name: _raw(name, value) for name, value in tensors.items()}, texts)


def load_checkpoint(data: bytes, model: nn.Module, optimizer: torch.optim.Optimizer, what: str) -> None:
    """Put model, optimiser and, where they are in it, random numbers into the state of a checkpoint, in place.

    Raises
    ------
    DamagedError : not a checkpoint; the text begins with `what`
    ValueError : the optimiser has other groups than the one that was saved
    """
    raw, texts = decode_tensors(data, what)
    tensors = {name: _tensor(value) for name, value in raw.items()}
    load_state(model, _below(tensors, MODEL), current_versions(model))
    saved = json.loads(texts["optimizer"])
    if len(saved["groups"]) != len(optimizer.param_groups):
        raise ValueError(
            f"{what}: the optimiser had {len(saved['groups'])} groups of parameters, this one has "
            f"{len(optimizer.param_groups)}"
        )
    state: dict[int, Settings] = {int(index): dict(found) for index, found in saved["state"].items()}
    for name, value in _below(tensors, OPTIMIZER).items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    _restore_state(optimizer, state, set(saved.get("host", ())))
    for group, settings in zip(optimizer.param_groups, saved["groups"], strict=True):
        _restore_settings(group, settings)
    _restore_generators(_below(tensors, RANDOM))


def checkpoint_weights(data: bytes, what: str) -> dict[str, Tensor]:
    """Return the model's state dict of a checkpoint; DamagedError, beginning with `what`, if it is none."""
    raw, _ = decode_tensors(data, what)
    return _below({name: _tensor(value) for name, value in raw.items()}, MODEL)


def checkpoint_versions(data: bytes, what: str) -> dict[str, str]:
    """Return the text that a file of a checkpoint's weights alone needs, by its name; errors as above."""
    return {name: text for name, text in decode_tensors(data, what)[1].items() if name == VERSIONS}


def write_checkpoint(write: Write, number: int, data: bytes) -> str:
    """Write the checkpoint after segment `number` and return its name, which its content decides."""
    name = f"checkpoint-{number:06d}-{digest(data)[:12]}.safetensors"
    write(name, data)
    return name


def write_initial(write: Write, data: bytes) -> str:
    """Write the checkpoint before step 0 and return its name."""
    name = f"initial-{digest(data)[:12]}.safetensors"
    write(name, data)
    return name


def _raw(name: str, value: Any) -> RawTensor:  # Any: state dicts may hold anything
    """Return a tensor as it is stored."""
    if not isinstance(value, Tensor) or value.dtype not in NAMES:
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{name} is a {kind}; a checkpoint holds tensors of {', '.join(DTYPES)}")
    flat = value.detach().cpu().contiguous().reshape(-1)
    return RawTensor(NAMES[value.dtype], tuple(value.shape), flat.view(torch.uint8).numpy())


def _tensor(raw: RawTensor) -> Tensor:
    """Return a stored tensor, on the CPU."""
    return torch.from_numpy(np.array(raw.data)).view(DTYPES[raw.dtype]).reshape(raw.shape)


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose name begins with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _settings(group: Mapping[str, Any]) -> Settings:  # Any: an optimiser's own
    """Return the settings of a group; tensors of one number as that."""
    plain = {k: v.item() if isinstance(v, Tensor) else v for k, v in group.items() if k != "params"}
    return {k: v for k, v in plain.items() if v is None or isinstance(v, bool | int | float | str | tuple | list)}


def _restore_settings(group: Settings, settings: Settings) -> None:
    """Give a group the settings that were saved."""
    for key, value in settings.items():
        if isinstance(group.get(key), Tensor):
            group[key].fill_(value)
        else:
            group[key] = tuple(value) if isinstance(group.get(key), tuple) else value


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return an optimiser's parameters in the order in which its state is numbered."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _restore_state(optimizer: torch.optim.Optimizer, state: Mapping[int, Settings], host: set[str]) -> None:
    """Put the tensors of an optimiser's state in as they were saved: torch's loading gives them the weights' dtype."""
    parameters = _parameters(optimizer)
    for index, found in state.items():
        parameter = parameters[index]
        for key, value in found.items():
            if isinstance(value, Tensor):
                device = "cpu" if f"{index}.{key}" in host else parameter.device
                optimizer.state[parameter][key] = value.to(device)


def _generators(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the states of the random number generators that training may draw from."""
    yield "cpu", torch.get_rng_state()
    for index in sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"}):
        yield f"cuda.{index}", torch.cuda.get_rng_state(index)


def _restore_generators(states: Mapping[str, Tensor]) -> None:
    """Put random number generators into their states; those of GPUs that are not here are left out."""
    for name, state in states.items():
        if name == "cpu":
            torch.set_rng_state(state)
        elif int(name.removeprefix("cuda.")) < torch.cuda.device_count():
            torch.cuda.set_rng_state(state, int(name.removeprefix("cuda.")))
