"""Pack an optimiser's settings and state as JSON and tensors, and restore each value exactly.

The JSON has values as in `tasks.recording.settings`. `groups` holds the settings of each group of parameters. `state`
holds the entries of a parameter's state that are not tensors. `shared`, if any, is state without a parameter. `more`,
if any, holds further entries of the state dict. `host` is for parameters on other devices: it names the entries of
their state that are on the CPU. Tensors: optimizer.<index of the parameter>.<name>, setting.<index>.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tasks.recording.settings import Json, check_tensor, decode_setting, encode_setting

STATE, SETTING = "optimizer.", "setting."

Settings = dict[str, Any]  # Any: JSON
Tensors = dict[str, Tensor]


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[Settings, Tensors]:
    """Return settings and state of an optimiser as JSON, and its tensors by name, without a copy.

    Raises
    ------
    ValueError : a value cannot be restored exactly; the message names it
    """
    _check_single(optimizer)
    found: Tensors = {}
    document: Settings = {
        "groups": [_settings(group, number, found) for number, group in enumerate(optimizer.param_groups)]
    }
    tensors, optional = _pack_state(optimizer, document, found)
    optional["more"] = {
        _name(key, "optimizer: state dict"): encode_setting(value, f"optimizer: {key!r} of its state dict", found)
        for key, value in _sorted(optimizer.state_dict())
        if key not in ("state", "param_groups")
    }
    document |= {key: value for key, value in optional.items() if value}
    return document, tensors | {f"{SETTING}{name}": value for name, value in found.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, document: Settings, tensors: Mapping[str, Tensor]) -> None:
    """Restore an optimiser's state from the results of `pack_optimizer`, in place.

    A setting that is a tensor stays the same object where possible, since the loop may hold it too.

    Raises
    ------
    ValueError : the optimiser has other groups than the saved optimiser
    """
    groups = document["groups"]
    if len(groups) != len(optimizer.param_groups):
        raise ValueError(f"optimizer: expected {len(groups)} groups of parameters, found {len(optimizer.param_groups)}")
    found = _placed(document, tensors)
    _keep_objects(found, groups, optimizer)
    more = {key: decode_setting(node, found) for key, node in document.get("more", {}).items()}
    optimizer.load_state_dict({**optimizer.state_dict(), **more, "state": {}})
    _restore_state(optimizer, document, found, tensors)
    for group, settings in zip(optimizer.param_groups, groups, strict=True):
        members = group["params"]
        group.clear()
        group.update({key: decode_setting(node, found) for key, node in settings.items()}, params=members)


def _pack_state(optimizer: torch.optim.Optimizer, document: Settings, found: Tensors) -> tuple[Tensors, Settings]:
    """Return the state's tensors and the optional entries of the document; adds the other entries to `document`."""
    tensors: Tensors = {}
    others: dict[str, Settings] = {}
    host, parameters = [], _parameters(optimizer)
    states: dict[Any, Any] = dict(optimizer.state)  # Any: keys may be texts, unlike in torch's stub
    for index, parameter in enumerate(parameters):
        for key, value in _sorted(states.pop(parameter, {})):
            what = f"optimizer: state {key!r} of parameter {index}"
            name = f"{index}.{_name(key, what)}"
            if not isinstance(value, Tensor):
                others.setdefault(str(index), {})[key] = encode_setting(value, what, found)
                continue
            check_tensor(value, what)
            tensors[f"{STATE}{name}"] = value
            if value.device.type == "cpu" != parameter.device.type:  # mostly counts of steps
                host.append(name)
    if any(isinstance(owner, Tensor) for owner in states):
        raise ValueError("optimizer: expected state of its parameters, found that of another tensor; remove it")
    what = "optimizer: state"
    shared = {_name(key, what): encode_setting(value, f"{what} {key!r}", found) for key, value in _sorted(states)}
    document["state"] = others
    return tensors, {"host": host, "shared": shared}


def _settings(group: Mapping[Any, Any], number: int, found: Tensors) -> Settings:  # Any: an optimiser's own
    """Return the settings of a group as JSON; their tensors are added to `found`."""
    what = f"optimizer: group {number}"
    return {
        _name(key, what): encode_setting(value, f"{what}, setting {key!r}", found)
        for key, value in _sorted(group)
        if key != "params"
    }


def _sorted(entries: Mapping[Any, Any]) -> list[tuple[Any, Any]]:  # Any: an optimiser's own
    """Return entries sorted by name: tensors are numbered in this order, so equal states give equal bytes."""
    return sorted(entries.items(), key=lambda entry: str(entry[0]))


def _name(key: object, what: str) -> str:
    """Return a key if it is a text; raise ValueError otherwise."""
    if type(key) is not str:
        raise ValueError(f"{what}: expected names, found the key {key!r}; rename it")
    return key


def _check_single(optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError if an optimiser holds another one with a state that its state dict leaves out."""
    for name, value in vars(optimizer).items():
        if isinstance(value, torch.optim.Optimizer) and value.state is not optimizer.state:
            raise ValueError(
                f"optimizer: expected all state in {type(optimizer).__name__}, found an optimiser with another state "
                f"in {name!r}; let both share one `state`"
            )


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return an optimiser's parameters in the order of the indices in its state."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _placed(saved: Settings, tensors: Mapping[str, Tensor]) -> Tensors:
    """Return the tensors of settings on their saved devices."""
    placed: Tensors = {}

    def place(node: Json) -> None:
        if isinstance(node, dict) and "tensor" in node:
            placed[node["tensor"]] = tensors[f"{SETTING}{node['tensor']}"].to(node.get("device", "cpu"))
        for item in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            place(item)

    place({key: saved.get(key, {}) for key in ("groups", "state", "shared", "more")})
    return placed


@torch.no_grad()
def _keep_objects(found: Tensors, groups: Sequence[Settings], optimizer: torch.optim.Optimizer) -> None:
    """Replace tensors by the optimiser's tensors of the same form, after a copy of the values into these."""
    used: list[Tensor] = []
    for group, settings in zip(optimizer.param_groups, groups, strict=True):
        for key, node in settings.items():
            live = group.get(key)
            if not (isinstance(node, dict) and "tensor" in node and type(live) is Tensor):
                continue
            value = found[node["tensor"]]
            same_form = (live.dtype, live.shape, live.device) == (value.dtype, value.shape, value.device)
            if same_form and not any(live is other or value is other for other in used):
                live.copy_(value)
                found[node["tensor"]] = live
                used.append(live)


def _restore_state(
    optimizer: torch.optim.Optimizer, saved: Settings, found: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> None:
    """Restore an optimiser's state exactly; torch's loading would give tensors the weights' dtype."""
    parameters, host = _parameters(optimizer), set(saved.get("host", ()))
    for index, entries in saved["state"].items():
        state = optimizer.state[parameters[int(index)]]
        state.update({key: decode_setting(node, found) for key, node in entries.items()})
    for full, value in tensors.items():
        if not full.startswith(STATE):
            continue
        name = full.removeprefix(STATE)
        index, key = name.split(".", 1)
        parameter = parameters[int(index)]
        optimizer.state[parameter][key] = value.to("cpu" if name in host else parameter.device)
    for key, node in saved.get("shared", {}).items():
        optimizer.state[key] = decode_setting(node, found)
