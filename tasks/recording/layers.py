"""Choose the layers of a network that are recorded, and find their parameters."""

import difflib
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from storage.updates.parameters import Layer, Parameter, lay_out
from tasks.modules import MODULES, ModuleKind, kind_of

NORMALISATION = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)  # their parameters live in checkpoints only


def choose_layers(model: nn.Module, layers: Sequence[str] | None = None) -> dict[str, nn.Module]:
    """Return the modules to record, by name.

    Parameters
    ----------
    layers : module names; None for every covered module

    Raises
    ------
    ValueError : the model does not have a layer of that name; a layer is not covered; with None, a module with
        parameters is neither covered nor a normalisation; nothing can be recorded; or the state dict, from which an
        archive restores parameters, changes a parameter
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    if layers is None:
        chosen = dict(_all_covered(model))
    else:
        for name in layers:
            _check_layer(name, modules)
        chosen = {name: modules[name] for name in layers}
    if not chosen:
        raise ValueError(
            f"model: expected a layer that can be recorded ({_names()}), found none in {type(model).__name__}"
        )
    _check_names(model, chosen)
    return chosen


def recorded_parameters(
    chosen: Mapping[str, nn.Module],
) -> tuple[tuple[Layer, ...], tuple[Parameter, ...], list[tuple[nn.Module, str]]]:
    """Return layers, their parameters, and the module and attribute of each parameter.

    A parameter of several layers is recorded once, under the name of the first layer.
    """
    names: dict[int, str] = {}
    sizes, places, found = {}, [], []
    for layer, module in chosen.items():
        used: dict[str, str] = {}
        for part, parameter in module.named_parameters(recurse=False):
            name = names.setdefault(id(parameter), f"{layer}.{part}".lstrip("."))
            used[part] = name
            if name not in sizes:
                sizes[name] = str(parameter.dtype).removeprefix("torch."), tuple(parameter.shape)
                places.append((module, part))
        weight, bias = _kind(module).parameters
        found.append(Layer(layer, used[weight], used.get(bias)))
    return tuple(found), lay_out(sizes), places


def _all_covered(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield every covered module; other modules, except normalisations, must not have direct parameters."""
    for name, module in model.named_modules():
        if _recordable(module):
            yield name, module
        elif not isinstance(module, NORMALISATION) and any(True for _ in module.parameters(recurse=False)):
            raise ValueError(
                f"module {name!r}: expected parameters of modules that can be recorded ({_names()}), found those of a "
                f"{type(module).__name__}; name the layers to record: layers=[...]"
            )


def _check_layer(name: str, modules: Mapping[str, nn.Module]) -> None:
    """Raise ValueError unless `name` is a module that can be recorded."""
    if name not in modules:
        known = [other for other, module in modules.items() if _recordable(module)]
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[:8]
        near = ", ".join(map(repr, close)) or "none"
        raise ValueError(f"layer {name!r}: expected a module of the model, found none; close: {near}")
    if not _recordable(modules[name]):
        raise ValueError(f"layer {name!r}: expected one of {_names()}, found a {type(modules[name]).__name__}")


def _check_names(model: nn.Module, chosen: Mapping[str, nn.Module]) -> None:
    """Raise ValueError unless the state dict has the layers' parameters with their names and values."""
    state = model.state_dict()
    for layer, module in chosen.items():
        for part, parameter in module.named_parameters(recurse=False):
            name = f"{layer}.{part}".lstrip(".")
            if not _is_stored(state.get(name), parameter):
                raise ValueError(
                    f"layer {layer!r}: expected its {part} unchanged in the state dict as {name!r}, found a hook that "
                    "changes it; record other layers: layers=[...]"
                )


def _is_stored(stored: object, parameter: nn.Parameter) -> bool:
    """Return whether an entry of a state dict is a parameter, or a copy with the same values."""
    if not isinstance(stored, Tensor) or stored.shape != parameter.shape:
        return False
    return parameter.is_meta or stored.is_set_to(parameter) or torch.equal(stored.to(parameter.device), parameter)


def _recordable(module: nn.Module) -> bool:
    """Say whether a module is covered and its weight is a plain parameter."""
    kind, own = kind_of(module), {name for name, _ in module.named_parameters(recurse=False)}
    return kind is not None and kind.parameters[0] in own and own <= set(kind.parameters)


def _kind(module: nn.Module) -> ModuleKind:
    """Return the kind of a module that can be recorded."""
    kind = kind_of(module)
    assert kind is not None, module
    return kind


def _names() -> str:
    """Return the covered classes."""
    return ", ".join(kind.__name__ for kind in MODULES)
