"""Choose the layers of a network that are recorded, and find their parameters."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from storage.updates.parameters import Layer, Parameter, lay_out
from tasks.modules import COMPOSED, composed_kind_of, kind_names, kind_of
from tasks.modules.composed import PieceModule
from tasks.modules.naming import joined

LISTED = 50  # names of layers in an error
NORMALISATION = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)  # their parameters live in checkpoints only


def choose_layers(model: nn.Module, layers: Sequence[str] | None = None) -> dict[str, nn.Module]:
    """Return the modules to record, by name.

    Parameters
    ----------
    layers : module names; None for every covered module. A module that holds several linear maps is recorded as its
        pieces, each under a name of its own; a piece can be named too

    Raises
    ------
    TypeError : not a list of names
    ValueError : the model does not have a layer of that name; a layer is not covered; with None, a module with
        parameters is neither covered nor a normalisation; nothing can be recorded; or the state dict, from which an
        archive restores parameters, changes a parameter
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    pieces = {name: piece for owner, module in modules.items() for name, piece in _pieces(owner, module).items()}
    if layers is None:
        chosen = dict(_all_covered(model))
    else:
        chosen = {}
        for name in _checked_names(layers):
            if name in pieces:
                chosen[name] = pieces[name]
                continue
            _check_layer(name, modules)
            chosen |= _pieces(name, modules[name]) or {name: modules[name]}
    if not chosen:
        raise ValueError(
            f"model: expected a layer that can be recorded ({kind_names()}), found none in {type(model).__name__}"
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
        for part, (own_name, owner, attribute) in _places(layer, module).items():
            parameter = owner.get_parameter(attribute)
            name = names.setdefault(id(parameter), own_name)
            used[part] = name
            if name not in sizes:
                sizes[name] = str(parameter.dtype).removeprefix("torch."), tuple(parameter.shape)
                places.append((owner, attribute))
        found.append(Layer(layer, used["weight"], used.get("bias")))
    return tuple(found), lay_out(sizes), places


def _all_covered(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield every covered module; other modules, except normalisations, must not have direct parameters."""
    for name, module, covered in _outermost(model):
        if covered:
            yield from (_pieces(name, module) or {name: module}).items()
        elif not isinstance(module, NORMALISATION) and any(True for _ in module.parameters(recurse=False)):
            raise ValueError(_not_covered(model, name, module))


def _outermost(model: nn.Module) -> Iterator[tuple[str, nn.Module, bool]]:
    """Yield each module that is not part of a module of several maps: its name, itself, whether it is covered."""
    inner: set[str] = set()
    for name, module in model.named_modules():
        if name in inner:
            continue
        pieces = _pieces(name, module)
        if pieces:
            inner |= {joined(name, child) for child, _ in module.named_modules() if child}
        yield name, module, bool(pieces) or _recordable(module)


def _not_covered(model: nn.Module, name: str, module: nn.Module) -> str:
    """Return the error for a module whose own parameters are not covered, with the layers that can be named."""
    where = f"module {name!r}" if name else "the network itself"
    parameters = ", ".join(own for own, _ in module.named_parameters(recurse=False))
    others = [other for other, _, covered in _outermost(model) if covered]
    listed = ", ".join(others[:LISTED]) + (f" and {len(others) - LISTED} more" if len(others) > LISTED else "")
    return (
        f"{where}: expected parameters of modules that can be recorded ({kind_names()}), found those of a "
        f"{_class_of(module)}: {parameters}; name the layers to record, such as layers: [{listed}]"
    )


def _checked_names(layers: Sequence[str]) -> list[str]:
    """Return the names of layers; a text, which is a sequence of its letters, and other values raise TypeError."""
    if isinstance(layers, str) or not isinstance(layers, Iterable):
        more = f"; write layers=[{layers!r}]" if isinstance(layers, str) else ""
        raise TypeError(f"layers: expected a list of names of modules, found {layers!r}{more}")
    names = list(layers)
    if other := [name for name in names if not isinstance(name, str)]:
        raise TypeError(f"layers: expected names of modules, found {other[0]!r}")
    return names


def _check_layer(name: str, modules: Mapping[str, nn.Module]) -> None:
    """Raise ValueError unless `name` is a module that can be recorded."""
    if name not in modules:
        known = [other for other, module in modules.items() if _recordable(module)]
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[:8]
        near = ", ".join(map(repr, close)) or "none"
        raise ValueError(f"layer {name!r}: expected a module of the model, found none; close: {near}")
    if not _recordable(modules[name]) and not _pieces(name, modules[name]):
        raise ValueError(f"layer {name!r}: expected one of {kind_names()}, found a {_class_of(modules[name])}")


def _check_names(model: nn.Module, chosen: Mapping[str, nn.Module]) -> None:
    """Raise ValueError unless the state dict has the layers' parameters with their names and values."""
    state = model.state_dict()
    for layer, module in chosen.items():
        for part, (name, owner, attribute) in _places(layer, module).items():
            if not _is_stored(state.get(name), owner.get_parameter(attribute)):
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


def _pieces(name: str, module: nn.Module) -> dict[str, nn.Module]:
    """Return the pieces of a module that holds several linear maps, by name in the network; {} for other modules."""
    kind = composed_kind_of(module)
    if kind is None:
        return {}
    found = {piece: PieceModule(name, module, one) for piece, one in kind.pieces(module).items()}
    plain = {path for piece in found.values() for path in piece.piece.names.values()}
    if plain != {path for path, _ in module.named_parameters()}:
        return {}  # parametrised, or with parameters of a user's own
    return {joined(name, piece): one for piece, one in found.items()}


def _places(layer: str, module: nn.Module) -> dict[str, tuple[str, nn.Module, str]]:
    """Return by part, weight or bias: the parameter's name in the network, its module and its attribute there."""
    if isinstance(module, PieceModule):
        return module.places()
    kind = kind_of(module)
    assert kind is not None, module
    own = {part for part, _ in module.named_parameters(recurse=False)}
    return {
        part: (joined(layer, name), module, name)
        for part, name in zip(("weight", "bias"), kind.parameters, strict=True)
        if name in own
    }


def _class_of(module: nn.Module) -> str:
    """Return a module's class, and what keeps it from being covered where its class is."""
    name = type(module).__name__
    if getattr(module, "max_norm", None) is not None:
        return f"{name} with max_norm, which changes its weight in each call"
    for known, kind in COMPOSED.items():
        if isinstance(module, known) and (problem := kind.problem(module)):
            return f"{name} with {problem}"
    return name
