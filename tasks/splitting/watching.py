"""Watch a network's run: the inputs of its traced layers, from the modules' own calls."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from tasks.modules import Embedding, kind_of, only_tensor
from tasks.modules.embedding import PADDING
from tasks.modules.naming import Owned, find_map, split_call, traced_module
from tasks.modules.rows import Inputs, Rows, declared, declared_counts, offsets_of, values_of, with_values
from tasks.splitting.outputs import check_name


class Watch:
    """The inputs of traced layers in one run; hooks last as long as `during`.

    Parameters
    ----------
    layers : names of modules, of maps of modules that hold several, or of single calls (`tasks.modules.naming`)
    """

    def __init__(self, model: nn.Module, layers: Sequence[str]) -> None:
        self._model, self._layers = model, list(layers)
        self._maps = {layer: found for layer in layers if (found := find_map(model, layer)) is not None}
        self._modules: dict[str, nn.Module] = {}
        for layer in layers:
            name = self._maps[layer].owner if layer in self._maps else split_call(layer)[0]
            if layer not in self._maps and name:  # without a name it is the network itself
                check_name(model, name)
            self._modules[name] = model.get_submodule(name)
        self._calls: dict[str, list[Mapping[str, Inputs]]] = {}

    @contextmanager
    def during(self) -> Iterator[None]:
        """Watch the calls in the block."""
        self._calls = {name: [] for name in self._modules}
        with ExitStack() as hooks, _own_calls(self._model):
            for name, module in self._modules.items():
                handle = module.register_forward_pre_hook(partial(self._keep, name), with_kwargs=True)
                hooks.callback(handle.remove)
            yield

    def inputs(self, count: int) -> dict[str, Inputs]:
        """Return by layer the inputs (count, ...) of all its calls, or of the one that it names.

        Raises
        ------
        ValueError : no such call, calls that do not go together, or inputs without an axis of `count` queries
        """
        return {layer: self._joined(layer, count) for layer in self._layers}

    def _keep(self, name: str, module: nn.Module, given: tuple[object, ...], named: Mapping[str, object]) -> None:
        """Keep the inputs of a call; what follows may change them in place."""
        here = [found for found in self._maps.values() if found.owner == name]
        layer = next((layer for layer, found in self._maps.items() if found.owner == name), name)
        try:
            self._calls[name].append(_taken(module, here, given, named))
        except ValueError as error:
            raise ValueError(f"layer {layer!r}: {error}") from error

    def _joined(self, layer: str, count: int) -> Inputs:
        """Return the inputs of a layer."""
        found, (name, call) = self._maps.get(layer), split_call(layer)
        owner, part = (name, "") if found is None else (found.owner, found.name)
        calls = [one[part] for one in self._calls[owner]]
        if not calls:
            raise ValueError(f"layer {layer!r}: expected a call in the network's forward, found none")
        if call is not None and call >= len(calls):
            raise ValueError(f"layer {layer!r}: expected a call of 0 to {len(calls) - 1}, found {call}")
        try:
            rows = [_by_query(one, count) for one in (calls if call is None else [calls[call]])]
            joined = _together(traced_module(self._model, layer), rows)
            if len(joined) != count:
                raise ValueError(
                    f"expected inputs with an axis of {count} queries, found {tuple(joined.shape)}; give what all "
                    "queries share, such as positions, a first axis of 1"
                )
            return joined
        except ValueError as error:
            raise ValueError(f"layer {layer!r}: {error}") from error


def _taken(
    module: nn.Module, maps: Sequence[Owned], given: tuple[object, ...], named: Mapping[str, object]
) -> dict[str, Inputs]:
    """Return copies of a call's inputs, by map; of a plain module under the name ""."""
    if maps:
        found = maps[0].kind.inputs(module, given, named)
        return {one.name: _copied(found[one.name]) for one in maps}
    kind, values = kind_of(module), (*given, *named.values())
    taken = only_tensor(values) if kind is None else kind.inputs(module, values)
    if isinstance(kind, Embedding) and (counts := declared_counts(taken[..., None])) is not None:
        tokens = taken.new_full((len(counts), int(counts.max())), PADDING)
        tokens[torch.arange(tokens.shape[1]) < counts[:, None]] = taken
        return {"": tokens}
    return {"": _copied(declared(taken))}


def _copied(rows: Inputs) -> Inputs:
    """Return a copy: what follows may change the inputs in place."""
    return with_values(rows, values_of(rows).clone().contiguous())


def _by_query(rows: Inputs, count: int) -> Inputs:
    """Return inputs with an axis of queries: a batch of one, such as positions, is the same for all of them."""
    if isinstance(rows, Tensor) and rows.ndim and rows.shape[0] == 1 and count > 1:
        return rows.expand(count, *rows.shape[1:])
    return rows


def _together(module: nn.Module, calls: Sequence[Inputs]) -> Inputs:
    """Return the inputs of several calls as those of one.

    Raises
    ------
    ValueError : the module cannot take them in one call
    """
    kind, plain, ragged = kind_of(module), list[Tensor](), list[Rows]()
    for one in calls:
        if isinstance(one, Rows):
            ragged.append(one)
        else:
            plain.append(one)
    if len(calls) > 1 and kind is None:
        raise ValueError(f"expected one call, found {len(calls)}")
    if plain and ragged:
        raise ValueError("expected calls with the same rows of each sample, found ragged and others; name one call")
    if ragged:
        return ragged[0] if len(ragged) == 1 else _side_by_side(ragged)
    return (plain[0] if kind is None else kind.join(plain)).contiguous()


def _side_by_side(calls: Sequence[Rows]) -> Rows:
    """Return the rows of several calls, sample by sample."""
    counts = torch.stack([one.counts for one in calls]).sum(dim=0)
    pieces = [one.values[one.offsets[n] : one.offsets[n + 1]] for n in range(len(counts)) for one in calls]
    return Rows(torch.cat(pieces), offsets_of(counts))


@dataclass
class _Fused:
    """Torch's setting of the fused kernel, which all threads share, and the blocks in which it is off."""

    lock: Any = field(default_factory=Lock)  # Any: the class of locks has no public name
    blocks: int = 0
    before: bool = True


_FUSED = _Fused()


@contextmanager
def _own_calls(model: nn.Module) -> Iterator[None]:
    """Let modules of attention call their parts one by one, in place of a fused kernel that passes by their hooks."""
    if not any(isinstance(one, nn.MultiheadAttention) for one in model.modules()):
        yield
        return
    with _FUSED.lock:
        if not _FUSED.blocks:
            _FUSED.before = torch.backends.mha.get_fastpath_enabled()
            torch.backends.mha.set_fastpath_enabled(False)
        _FUSED.blocks += 1
    try:
        yield
    finally:
        with _FUSED.lock:
            _FUSED.blocks -= 1
            if not _FUSED.blocks:
                torch.backends.mha.set_fastpath_enabled(_FUSED.before)
