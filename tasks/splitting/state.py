"""Refuse networks with a hidden state that is kept between calls: a query would have another answer each time."""

from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn


def check_state(model: nn.Module, images: Tensor) -> None:
    """Raise ValueError where a recurrent layer begins with another state in a second run on the same images.

    Parameters
    ----------
    model : in evaluation mode
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.RNNBase)}
    if not layers:
        return
    runs: list[dict[str, list[Tensor]]] = []
    for _ in range(2):
        seen: dict[str, list[Tensor]] = {name: [] for name in layers}
        with ExitStack() as hooks, torch.inference_mode():
            for name, module in layers.items():
                handle = module.register_forward_pre_hook(partial(_keep, seen[name]), with_kwargs=True)
                hooks.callback(handle.remove)
            model(images.clone())
        runs.append(seen)
    for name in layers:
        first, second = (run[name] for run in runs)
        if len(first) != len(second) or any(not torch.equal(*pair) for pair in zip(first, second, strict=True)):
            raise ValueError(
                f"layer {name!r}: expected the same state before the first step in each call of the network, found one "
                "that is kept between calls; begin each call with zeros, or with a state made from its input"
            )


def _keep(seen: list[Tensor], _: nn.Module, given: tuple[object, ...], named: dict[str, object]) -> None:
    """Keep copies of the states that a call gives."""
    start = named.get("hx", given[1] if len(given) > 1 else None)
    seen += [one.clone() for one in (start if isinstance(start, tuple) else (start,)) if isinstance(one, Tensor)]
