"""How much the calls of recorded modules show in a step: what a replay keeps to split updates by example."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from tasks.modules.composed import PieceModule
from tasks.modules.rows import declared_counts


def call_numbers(model: nn.Module, modules: Mapping[str, nn.Module], example: Tensor) -> int:
    """Return the numbers in the inputs and outputs of all calls of some modules, for one sample.

    Parameters
    ----------
    modules : recorded layers by name; pieces count as the module that holds them
    example : (n, ...) inputs of the network; where a module sees any number of rows of each, the most count. The
        network runs in evaluation mode and goes back to its mode
    """
    owners = {id(one): one for module in modules.values() for one in [_owner(module)]}
    training, found = model.training, 0
    with ExitStack() as hooks, torch.no_grad():

        def note(_: nn.Module, given: tuple[object, ...], named: dict[str, object], made: object) -> None:
            nonlocal found
            tensors = list(_tensors((*given, *named.values(), made)))
            counts = declared_counts(tensors[0]) if tensors else None
            numbers = sum(one.numel() for one in tensors)
            if counts is None:
                found += -(-numbers // len(example))
            else:
                found += -(-numbers // max(1, len(tensors[0]))) * int(counts.max())

        for owner in owners.values():
            hooks.callback(owner.register_forward_hook(note, with_kwargs=True).remove)
        model.eval()(example)
        model.train(training)
    return found


def _owner(module: nn.Module) -> nn.Module:
    """Return the module that is called: of a piece, the one that holds it."""
    return module.owner if isinstance(module, PieceModule) else module


def _tensors(value: object) -> Iterator[Tensor]:
    """Yield the tensors of a call's arguments or results."""
    if isinstance(value, PackedSequence):
        value = value.data
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for one in value:
            yield from _tensors(one)
