"""A small training whose steps draw random numbers, with and without a recorder."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from storage.documents import digest
from tasks.recording import UpdateRecorder
from tasks.recording.programs import Row

Optimize = Callable[[nn.Module], torch.optim.Optimizer]
State = dict[str, Tensor]
Repeated = tuple[nn.Module, torch.optim.Optimizer, Callable[[Row], object]]


def small_net() -> nn.Module:
    """A grouped and a transposed convolution, batch norm, dropout and two linear layers."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, groups=2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 3, 2, bias=False),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(75, 6),
        nn.LayerNorm(6),
        nn.Linear(6, 3),
    )


LAYERS = ["0", "3", "6", "8"]


def momentum(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)


@dataclass
class Training:
    """A training in float32 on a fixed random batch per step; `states` has the weights before and after each step."""

    optimize: Optimize = momentum
    build: Callable[[], nn.Module] = small_net
    dtype: torch.dtype = torch.float32
    states: list[State] = field(default_factory=list)

    def start(self) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Return model and optimiser before step 0."""
        torch.manual_seed(3)
        model = self.build().to(self.dtype)
        self.states = [snapshot(model)]
        return model, self.optimize(model)

    def update(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> Tensor:
        """Make a step and return its loss."""
        inputs, labels = batch(step)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs.to(self.dtype)), labels)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
        optimizer.step()
        self.states.append(snapshot(model))
        return loss

    def plain(self, steps: int) -> State:
        """Train without a recorder and return the final state."""
        model, optimizer = self.start()
        for step in range(steps):
            self.update(model, optimizer, step)
        return snapshot(model)

    def recorded(
        self,
        store: Path,
        steps: int,
        every: int = 7,
        *,
        fail_at: int = -1,
        layers: list[str] | None = None,
        kind: str = "auto",
        preflight: bool = True,
    ) -> State:
        """Train with a recorder, as a user's script does, and return the final state."""
        model, optimizer = self.start()
        program = self.program if kind == "replay" and preflight else None
        with UpdateRecorder(
            model, optimizer, store, kind=kind, checkpoint_every=every, layers=layers, program=program
        ) as recorder:
            for step in range(recorder.first_step, steps):
                with recorder.step(ids(step), label=step % 3, epoch=step // 5, ghosts=[step]) as row:
                    if step == fail_at:
                        raise Interruption
                    row.loss = self.update(model, optimizer, step)
        return snapshot(model)

    def program(self) -> Repeated:
        """Return model, optimiser and step of the same training from its start, as `open_updates` asks for them."""
        again = type(self)(self.optimize, self.build, self.dtype)
        model, optimizer = again.start()
        return model, optimizer, lambda row: again.update(model, optimizer, row.step)


class Interruption(Exception):  # noqa: N818
    """What a loop may raise."""


def ids(step: int) -> list[int]:
    return [100 * step + k for k in range(1 + step % 4)]


def batch(step: int) -> tuple[Tensor, Tensor]:
    """Return the batch of a step; draws no number from torch's own generator."""
    generator = torch.Generator().manual_seed(step)
    labels = torch.randint(3, (8,), generator=generator)
    return torch.randn(8, 2, 6, 6, generator=generator) + labels[:, None, None, None], labels


def snapshot(model: nn.Module) -> State:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same(one: State, other: State) -> bool:
    """Say whether two states are bitwise equal."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def file_digests(store: Path, kind: str = "updates") -> dict[str, str]:
    """Return the digest of each file of the archive in a store, by its name without the attempt."""
    (folder,) = (store / kind).glob("*/files")
    files = (file for file in folder.rglob("*") if file.is_file())
    names = {re.sub(r"(segment-\d+)-\w+", r"\1", str(file.relative_to(folder))): file for file in files}
    return {name: digest(file.read_bytes()) for name, file in sorted(names.items())}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Training]:
    """A finished archive of 17 steps in segments of 7, not to be changed."""
    training = Training()
    store = tmp_path_factory.mktemp("archive") / "store"
    training.recorded(store, 17)
    return store, training


@pytest.fixture(scope="module")
def replay_archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Training]:
    """The same as a replay."""
    training = Training()
    store = tmp_path_factory.mktemp("replay") / "store"
    training.recorded(store, 17, kind="replay")
    return store, training
