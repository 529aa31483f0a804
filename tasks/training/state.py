"""Model and optimiser as named tensors, and back: all that a training needs to go on bitwise."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

MODEL, OPTIMIZER = "model.", "optimizer."


def state_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the state of model and optimiser; learning rates are a function of the step and left out.

    Raises
    ------
    ValueError : the optimiser keeps something that is no tensor
    """
    tensors = {f"{MODEL}{name}": value for name, value in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"{OPTIMIZER}{index}.{key}"] = value
            elif value is not None:
                raise ValueError(f"optimiser state {key!r} is a {type(value).__name__}; only tensors can be kept")
    return tensors


def load_state(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put what `state_tensors` returned into a model and an optimiser, in place."""
    model.load_state_dict(weights_of(tensors))
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith(OPTIMIZER):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def weights_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the model's part of `state_tensors`, as its state dict."""
    return {name.removeprefix(MODEL): value for name, value in tensors.items() if name.startswith(MODEL)}
