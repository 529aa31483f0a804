"""Names of traced layers: a module, a map of a module that holds several, and one call of either.

`fc` are all calls of a layer together, `fc@1` is its second call. `attention.q_proj` is a map of an attention, and
`attention.q_proj.0` its part of the first head; `lstm.l0` are the gates of a recurrent layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from tasks.modules import ComposedKind, composed_kind_of
from tasks.modules.composed import LinearMap


@dataclass(frozen=True)
class Owned:
    """A map of a module that holds several.

    Attributes
    ----------
    owner : name of the module
    name : of the map in the module
    """

    owner: str
    module: nn.Module
    kind: ComposedKind
    name: str
    map: LinearMap

    def piece(self, name: str) -> str:
        """Return the name of a piece in the network."""
        return joined(self.owner, name)


def joined(owner: str, name: str) -> str:
    """Return the name in the network of what a module calls `name`."""
    return f"{owner}.{name}" if owner else name


def split_call(name: str) -> tuple[str, int | None]:
    """Return a layer's name and the number of the call that it means, None for all calls."""
    layer, at, call = name.rpartition("@")
    known = at and call.isdecimal() and len(call) < 19 and call == str(int(call))
    return (layer, int(call)) if known else (name, None)


def find_map(model: nn.Module, name: str) -> Owned | None:
    """Return the map that a name means, None where it names a module."""
    layer, _ = split_call(name)
    modules = dict(model.named_modules(remove_duplicate=False))
    words = layer.split(".")
    for cut in range(len(words)):
        owner, rest = ".".join(words[:cut]), ".".join(words[cut:])
        kind = composed_kind_of(modules[owner]) if owner in modules else None
        if kind is not None and rest in (maps := kind.maps(modules[owner])):
            return Owned(owner, modules[owner], kind, rest, maps[rest])
    return None


def traced_module(model: nn.Module, name: str) -> nn.Module:
    """Return the operation of a traced layer: its module, or a stand-in without values for a map."""
    found = find_map(model, name)
    return model.get_submodule(split_call(name)[0]) if found is None else found.kind.stand_in(found.map.size)


def map_names(owner: str, module: nn.Module) -> list[str]:
    """Return the names in the network of a module's maps, without those that are parts of others."""
    kind = composed_kind_of(module)
    return [] if kind is None else [joined(owner, n) for n, one in kind.maps(module).items() if not one.part]


def pieces_of(model: nn.Module, name: str) -> list[str]:
    """Return the recorded layers that a traced layer is made of."""
    found = find_map(model, name)
    return [split_call(name)[0]] if found is None else [found.piece(piece) for piece in found.map.pieces]


def whole_layers(model: nn.Module, recorded: Sequence[str]) -> list[str]:
    """Return the traced layers of recorded ones: maps in place of the pieces that make them, without single heads."""
    needed = {
        name: pieces
        for owner, module in model.named_modules(remove_duplicate=False)
        for name in map_names(owner, module)
        if set(pieces := pieces_of(model, name)) <= set(recorded)
    }
    replaced = {piece for pieces in needed.values() for piece in pieces}
    found: list[str] = []
    for layer in recorded:
        maps = [name for name, pieces in needed.items() if pieces[-1] == layer]
        found += maps or ([] if layer in replaced else [layer])
    return found


def is_traced(model: nn.Module, recorded: Sequence[str], name: str) -> bool:
    """Return whether all that a traced layer is made of is recorded; a piece by itself is not a traced layer."""
    alone = find_map(model, name) is not None or split_call(name)[0] in dict(
        model.named_modules(remove_duplicate=False)
    )
    return alone and set(pieces_of(model, name)) <= set(recorded)
