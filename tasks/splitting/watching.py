"""Watch a network's run: the inputs of its traced layers, from the modules' own calls."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from tasks.modules import kind_of, only_tensor
from tasks.modules.naming import Owned, find_map, split_call, traced_module
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
            if layer not in self._maps:
                check_name(model, name)
            self._modules[name] = model.get_submodule(name)
        self._calls: dict[str, list[Mapping[str, Tensor]]] = {}

    @contextmanager
    def during(self) -> Iterator[None]:
        """Watch the calls in the block."""
        self._calls = {name: [] for name in self._modules}
        with ExitStack() as hooks, _own_calls(self._model):
            for name, module in self._modules.items():
                handle = module.register_forward_pre_hook(partial(self._keep, name), with_kwargs=True)
                hooks.callback(handle.remove)
            yield

    def inputs(self, count: int) -> dict[str, Tensor]:
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

    def _joined(self, layer: str, count: int) -> Tensor:
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
            kind = kind_of(traced_module(self._model, layer))
            if kind is not None:
                return kind.join(rows).contiguous()
            if len(rows) > 1:
                raise ValueError(f"expected one call, found {len(rows)}")
            return rows[0].contiguous()
        except ValueError as error:
            raise ValueError(f"layer {layer!r}: {error}") from error


def _taken(
    module: nn.Module, maps: Sequence[Owned], given: tuple[object, ...], named: Mapping[str, object]
) -> dict[str, Tensor]:
    """Return copies of a call's inputs, by map; of a plain module under the name ""."""
    if maps:
        found = maps[0].kind.inputs(module, given, named)
        return {one.name: found[one.name].clone() for one in maps}
    kind, values = kind_of(module), (*given, *named.values())
    return {"": (only_tensor(values) if kind is None else kind.inputs(module, values)).clone()}


def _by_query(rows: Tensor, count: int) -> Tensor:
    """Return inputs with an axis of queries: a batch of one, such as positions, is the same for all of them."""
    if rows.ndim and rows.shape[0] == 1 and count > 1:
        return rows.expand(count, *rows.shape[1:])
    return rows


@contextmanager
def _own_calls(model: nn.Module) -> Iterator[None]:
    """Let modules of attention call their parts one by one, in place of a fused kernel that passes by their hooks."""
    attends = any(isinstance(one, nn.MultiheadAttention) for one in model.modules())
    before = torch.backends.mha.get_fastpath_enabled()
    if attends:
        torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        if attends:
            torch.backends.mha.set_fastpath_enabled(before)
