"""The states of torch's random generators that a training may draw from: of the CPU, and of the model's GPUs."""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

States = dict[str, Tensor]  # by name: cpu, cuda.<index>


def generator_states(model: nn.Module) -> States:
    """Return the present states."""
    return states_of(gpus_of(model))


def gpus_of(model: nn.Module) -> list[int]:
    """Return the indices of a model's GPUs."""
    return sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})


def states_of(gpus: Sequence[int]) -> States:
    """Return the present states of the CPU's generator and those of some GPUs."""
    return {"cpu": torch.get_rng_state()} | {f"cuda.{index}": torch.cuda.get_rng_state(index) for index in gpus}


def restore_generators(states: Mapping[str, Tensor]) -> None:
    """Restore states; those of missing GPUs are left out."""
    for name, state in states.items():
        if name == "cpu":
            torch.set_rng_state(state)
        elif int(name.removeprefix("cuda.")) < torch.cuda.device_count():
            torch.cuda.set_rng_state(state, int(name.removeprefix("cuda.")))


def same_states(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Return whether two states are equal."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@contextmanager
def generators_kept() -> Iterator[None]:
    """Restore the global random generators of torch, Python and NumPy after the block."""
    states = random.getstate(), np.random.get_state()  # the legacy generator is what a program may draw from
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch's stub
    try:
        with torch.random.fork_rng(devices=list(range(torch.cuda.device_count())) if used else []):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
