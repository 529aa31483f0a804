"""The loop of the docs: a model that is one layer, of any dtype, on 60 examples."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from tasks.recording import UpdateRecorder
from tasks.recording.programs import Row

STEPS = 6
IMAGES = torch.randn(60, 4, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(60) % 3
IDS = np.arange(60)
DTYPES = {"build": torch.float32, "wide": torch.float64, "half": torch.float16, "brain": torch.bfloat16}


def build(dtype: torch.dtype = torch.float32) -> nn.Linear:
    """The model."""
    torch.manual_seed(0)
    return nn.Linear(4, 3).to(dtype)


wide, half, brain = partial(build, torch.float64), partial(build, torch.float16), partial(build, torch.bfloat16)


def masked() -> nn.Linear:
    """The model with its last class left out."""
    model, out = build(), torch.tensor([False, False, True])
    model.register_forward_hook(lambda *seen: seen[-1].masked_fill(out, -torch.inf))
    return model


def narrow() -> nn.Linear:
    """The model with an output of half the bits."""
    model = build()
    model.register_forward_hook(lambda *seen: seen[-1].bfloat16())
    return model


def leaves() -> nn.Module:
    """A builder that ends the program."""
    raise SystemExit(7)


def _step(dtype: torch.dtype, factor: float = 1.0) -> tuple[nn.Module, torch.optim.Optimizer, Callable[[Row], object]]:
    model = build(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(row: Row) -> None:
        optimizer.zero_grad()
        row.loss = factor * F.cross_entropy(model(IMAGES[row.examples].to(dtype)), LABELS[row.examples])
        row.loss.backward()
        optimizer.step()

    return model, optimizer, step


program, wide_program = partial(_step, torch.float32), partial(_step, torch.float64)
other_program = partial(_step, torch.float32, 2.0)


def no_program() -> None:
    """A program that returns nothing."""


def failing_program() -> object:
    """A program that fails."""
    raise KeyError("learning rate")


def record(url: Path, kind: str = "dense", dtype: torch.dtype = torch.float32) -> str:
    """Record the loop with batches of one class; return the address."""
    model, optimizer, step = _step(dtype)
    again = partial(_step, dtype) if kind == "replay" else None
    with UpdateRecorder(model, optimizer, url, kind=kind, checkpoint_every=4, program=again) as recorder:
        for number in range(STEPS):
            ids = IDS[number % 3 :: 3]
            with recorder.step(ids, label=number % 3) as row:
                made = Row(number, 0, number % 3, ids, ids[:0])
                step(made)
                row.loss = made.loss
    return str(url)
