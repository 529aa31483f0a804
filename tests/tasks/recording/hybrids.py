"""Hybrid recordings of small trainings, with the true weights and each sample's true gradient."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.recording import UpdateRecorder, UpdateSource, open_updates

Optimize = Callable[[nn.Module], torch.optim.Optimizer]
State = dict[str, Tensor]
STEPS, EVERY, BATCH = 17, 7, 5

SGD: dict[str, dict[str, Any]] = {  # Any: torch's own settings
    "plain": {},
    "decay": {"weight_decay": 0.02},
    "heavy ball": {"momentum": 0.9},
    "heavy ball, decay": {"momentum": 0.9, "weight_decay": 0.02},
    "nesterov": {"momentum": 0.8, "nesterov": True, "weight_decay": 0.01},
    "dampening": {"momentum": 0.9, "dampening": 0.5},
    "foreach": {"momentum": 0.9, "weight_decay": 0.01, "foreach": True},
    "nesterov, foreach": {"momentum": 0.8, "nesterov": True, "foreach": True},  # changes gradients in place
}
OTHERS: dict[str, Optimize] = {
    "adam": lambda model: torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=1e-3),
    "adamw": lambda model: torch.optim.AdamW(model.parameters(), lr=0.01),
    "rmsprop": lambda model: torch.optim.RMSprop(model.parameters(), lr=0.01, momentum=0.5),
}


def mlp() -> nn.Module:
    """Three linear layers; the first two have few factors in a batch of BATCH."""
    return nn.Sequential(nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 3))


def convolutions() -> nn.Module:
    """Convolutions at few positions, one grouped, strided and padded by reflection, with batch norm."""
    return nn.Sequential(
        nn.Unflatten(1, (4, 2, 5)),
        nn.Conv2d(4, 32, (2, 3), padding=(0, 1), stride=(1, 2), bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 32, (1, 3), padding=(0, 1), padding_mode="reflect", groups=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(96, 3),
    )


def tokens() -> nn.Module:
    """A linear layer on two tokens per sample, then one on vectors."""
    return nn.Sequential(nn.Unflatten(1, (2, 20)), nn.Linear(20, 40), nn.ReLU(), nn.Flatten(), nn.Linear(80, 3))


@dataclass
class Hybrid:
    """A training on a fixed random batch per step, with a rate that falls and clipping.

    Parameters
    ----------
    after_backward, after_step : change gradients, or weights, of the step of a number
    """

    optimize: Optimize
    build: Callable[[], nn.Module] = mlp
    dtype: torch.dtype = torch.float64
    clip: float = 0.7
    after_backward: Callable[[nn.Module, int], None] = lambda *_: None
    after_step: Callable[[nn.Module, int], None] = lambda *_: None
    states: list[State] = field(default_factory=list)

    def start(self) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Return model and optimiser before step 0."""
        model = self.model()
        self.states = [_snapshot(model)]
        return model, self.optimize(model)

    def model(self) -> nn.Module:
        """Return the model before step 0."""
        torch.manual_seed(5)
        return self.build().to(self.dtype)

    def update(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> Tensor:
        """Make a step and return its loss."""
        inputs, labels = batch(step, self.dtype)
        for group in optimizer.param_groups:
            group["lr"] = 0.1 / (1 + step / 4)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs), labels)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
        nn.utils.clip_grad_norm_(model.parameters(), self.clip)
        self.after_backward(model, step)
        optimizer.step()
        self.after_step(model, step)
        self.states.append(_snapshot(model))
        return loss

    def plain(self, steps: int = STEPS) -> State:
        """Train without a recorder and return the final state."""
        model, optimizer = self.start()
        for step in range(steps):
            self.update(model, optimizer, step)
        return _snapshot(model)

    def recorded(self, store: Path, *, tolerance: float = 1e-5, fail_at: int = -1, steps: int = STEPS) -> State:
        """Train with a recorder and return the final state."""
        model, optimizer = self.start()
        with UpdateRecorder(
            model, optimizer, store, kind="hybrid", checkpoint_every=EVERY, tolerance=tolerance
        ) as recorder:
            for step in range(recorder.first_step, steps):
                if step == fail_at:
                    raise Interruption
                with recorder.step(ids(step), epoch=step // 5, ghosts=ids(step, ghosts=True)) as row:
                    row.loss = self.update(model, optimizer, step)
        return _snapshot(model)

    def source(self, store: Path, *, tolerance: float = 1e-5) -> UpdateSource:
        """Train with a recorder and open the archive."""
        self.recorded(store, tolerance=tolerance)
        return open_updates(str(store))

    def update_of(self, layer: str, start: int, stop: int, part: str = "weight") -> Tensor:
        """Return the true updates (n, *shape) of the steps."""
        name = f"{layer}.{part}"
        return torch.stack([self.states[t + 1][name] - self.states[t][name] for t in range(start, stop)])

    def sample_gradients(self, layer: str, step: int) -> Tensor:
        """Return the gradient of each sample's term of the loss (B, *shape) before a step, without clipping.

        Batch norm mixes the samples: a sample's part is then the gradient through its own rows of the layer's output,
        which differentiation with a copy of the weight per sample gives.
        """
        model = self.model()
        model.load_state_dict(self.states[step])
        inputs, labels = batch(step, self.dtype)
        module = model.get_submodule(layer)
        assert isinstance(module.weight, Tensor)
        copies = module.weight.detach().repeat(len(labels), *[1] * module.weight.ndim).requires_grad_()

        def forward(_: nn.Module, given: tuple[Tensor, ...], __: Tensor) -> Tensor:
            outputs = [
                torch.func.functional_call(twin, {"weight": weight}, (row[None],))
                for row, weight in zip(given[0], copies, strict=True)
            ]
            return torch.cat(outputs)

        twin = copy.deepcopy(module)
        module.register_forward_hook(forward)
        loss = F.cross_entropy(model(inputs), labels)
        (found,) = torch.autograd.grad(loss, copies)
        return found


class Interruption(Exception):  # noqa: N818
    """What a loop may raise."""


def sgd(name: str) -> Optimize:
    """Return an optimiser of SGD by the name of its settings."""
    return lambda model: torch.optim.SGD(model.parameters(), lr=0.1, **SGD[name])


def ids(step: int, *, ghosts: bool = False) -> list[int]:
    """Return the ids of a step's batch: the last is a ghost."""
    every = [100 * step + k for k in range(BATCH)]
    return every[-1:] if ghosts else every[:-1]


def batch(step: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the batch of a step."""
    generator = torch.Generator().manual_seed(step)
    labels = torch.randint(3, (BATCH,), generator=generator)
    return (torch.randn(BATCH, 40, generator=generator) + labels[:, None]).to(dtype), labels


def queries(source: UpdateSource, training: Hybrid, count: int = 4) -> Iterator[tuple[str, nn.Module, Tensor, Tensor]]:
    """Yield layer, module, final weight and inputs (Q, ...) of some queries."""
    model = training.model()
    seen: dict[str, Tensor] = {}
    for layer in source.layers:
        model.get_submodule(layer).register_forward_hook(
            lambda _, given, __, layer=layer: seen.update({layer: given[0].detach()})
        )
    model.eval()
    model(torch.cat([batch(step, training.dtype)[0] for step in range(900, 901 + count // BATCH)])[:count])
    for layer in source.layers:
        yield layer, model.get_submodule(layer), source.final(layer), seen[layer]


def _snapshot(model: nn.Module) -> State:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
