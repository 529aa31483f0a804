"""Recordings of the small training: its optimisers, its steps, and every step's weights read back and compared."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from tasks.recording import open_updates
from tests.tasks.recording.conftest import Training, momentum

STEPS = 17

OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "sgd": lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    "momentum": momentum,
    "nesterov": lambda model: torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda model: torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=1e-3),
    "adamw": lambda model: torch.optim.AdamW(model.parameters(), lr=0.01),
}


def restored(store: Path, layer: str) -> list[tuple[int, torch.Tensor, torch.Tensor | None]]:
    """Return (step, weight, bias) after every step, read back."""
    source, found = open_updates(str(store)), []
    for segment in source.segments():
        for block in source.blocks(segment, [layer]):
            biases = block.biases
            for row, step in enumerate(block.steps, 1):
                found.append((int(step), block.weights[row], None if biases is None else biases[row]))
    return found


def check_archive(store: Path, training: Training) -> None:
    """Compare every step's weights with the copies that the loop kept, bit for bit."""
    source = open_updates(str(store))
    for layer in source.layers:
        steps = restored(store, layer)
        assert [step for step, *_ in steps] == list(range(source.steps))
        for step, weight, bias in steps:
            state = training.states[step + 1]
            assert torch.equal(weight, state[f"{layer}.weight"]), (layer, step)
            assert bias is None or torch.equal(bias, state[f"{layer}.bias"]), (layer, step)
        for state, first, second in (
            (training.states[0], source.initial, source.initial_bias),
            (training.states[-1], source.final, source.final_bias),
        ):
            assert torch.equal(first(layer), state[f"{layer}.weight"])
            bias = second(layer)
            assert (bias is None) == (f"{layer}.bias" not in state)
            assert bias is None or torch.equal(bias, state[f"{layer}.bias"])
