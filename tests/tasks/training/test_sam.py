"""SAM against its two passes written out with torch's SGD."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.training.batches import Batch, Positions
from tasks.training.ghost_norm import ghost_rows, with_ghost_norm
from tasks.training.optimizers import OPTIMIZERS
from tasks.training.sam import Sam
from tasks.training.samplers.shuffled import ShuffledBatches
from tests.tasks.training.steps import train_steps

INPUTS = torch.randn((24, 5), generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(24) % 3
KINDS: list[dict[str, Any]] = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01, "rho": 0.5},
]


def fetch(positions: Positions) -> tuple[Tensor, Tensor]:
    return INPUTS[torch.from_numpy(positions)], LABELS[torch.from_numpy(positions)]


def network() -> nn.Sequential:
    """Return a seeded network with batch norm."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))


def descend(model: nn.Module, optimizer: torch.optim.Optimizer, rho: float, x: Tensor, y: Tensor) -> None:
    """Make one update of SAM: gradient, ascent by rho, gradient there, back, SGD's step with the second gradient."""
    parameters = list(model.parameters())
    F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]  # torch's stub
    statistics = {name: value.clone() for name, value in model.named_buffers()}
    first = [p.grad.clone() for p in parameters if p.grad is not None]
    norm = torch.cat([g.flatten() for g in first]).norm()
    before = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        for p, g in zip(parameters, first, strict=True):
            p.add_(rho * g / norm)
    optimizer.zero_grad()
    F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]  # torch's stub
    with torch.no_grad():
        for p, value in zip(parameters, before, strict=True):
            p.copy_(value)
        for name, value in model.named_buffers():  # running statistics follow the first pass only
            value.copy_(statistics[name])
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("settings", KINDS)
def test_updates_are_those_of_two_passes_and_sgd(settings: dict[str, Any]) -> None:
    model, other, batches = network(), network(), ShuffledBatches(LABELS.numpy(), 0, 6)
    losses = train_steps(model, OPTIMIZERS["sam"](model.parameters(), lr=0.1, **settings), fetch, batches, 0, 9)
    plain = {key: value for key, value in settings.items() if key != "rho"}
    sgd = torch.optim.SGD(other.parameters(), lr=0.1, foreach=False, **plain)
    other.train()
    expected = []
    for step in range(9):
        x, y = fetch(batches.batch(step).examples)
        with torch.no_grad():
            expected.append(F.cross_entropy(copied(other)(x), y).item())
        descend(other, sgd, settings.get("rho", 0.05), x, y)
    assert losses == pytest.approx(expected, rel=1e-4)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name], rtol=1e-4, atol=1e-6)


def copied(model: nn.Module) -> nn.Module:
    """Return a copy whose statistics may move."""
    twin = network()
    twin.load_state_dict(model.state_dict())
    return twin


def test_the_step_ends_where_it_began_plus_one_update() -> None:
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer = Sam([weight], lr=0.1, rho=5.0)
    seen = []

    def closure() -> Tensor:
        seen.append(weight.detach().clone())
        weight.grad = weight.detach().clone()  # of half the squared norm
        return weight.detach().square().sum() / 2

    assert optimizer.step(closure).item() == 12.5
    torch.testing.assert_close(torch.stack(seen), torch.tensor([[3.0, 4.0], [6.0, 8.0]]))
    torch.testing.assert_close(weight.detach(), torch.tensor([2.4, 3.2]))


def test_ghosts_leave_running_statistics_to_the_first_pass() -> None:
    model = with_ghost_norm(network())
    once = with_ghost_norm(network())
    with ghost_rows(once.train(), 4, 2):
        once(INPUTS[:6])
    optimizer = Sam(model.parameters(), lr=0.1)

    class Fixed(ShuffledBatches):
        """The first six samples, two of them ghosts."""

        def epoch(self, epoch: int) -> list[Batch]:
            order = torch.arange(6).numpy()
            return [Batch(order[:4], order[4:])]

    train_steps(model, optimizer, fetch, Fixed(LABELS.numpy(), 0, 24), 0, 1)
    assert torch.equal(model.get_buffer("1.running_mean"), once.get_buffer("1.running_mean"))
    assert torch.equal(model.get_buffer("1.running_var"), once.get_buffer("1.running_var"))
    assert int(model.get_buffer("1.num_batches_tracked")) == 1


def test_dropout_is_the_same_in_both_passes() -> None:
    seen: list[Tensor] = []

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            seen.append(F.dropout(torch.ones(32)))
            return self.last(x)  # type: ignore[no-any-return]  # torch's stub

    model = Watched()
    train_steps(model, Sam(model.parameters(), lr=0.1), fetch, ShuffledBatches(LABELS.numpy(), 0, 12), 0, 1)
    assert len(seen) == 2
    assert torch.equal(seen[0], seen[1])


def test_bad_settings_and_a_missing_closure_are_named() -> None:
    with pytest.raises(ValueError, match=r"rho: expected a length above 0, found 0\.0"):
        Sam([nn.Parameter(torch.ones(1))], lr=0.1, rho=0.0)
    with pytest.raises(ValueError, match="closure: expected a function"):
        Sam([nn.Parameter(torch.ones(1))], lr=0.1).step()
