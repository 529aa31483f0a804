"""Torch's own random numbers are a function of the seed, whatever else was drawn before or in other threads."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor, nn

from tasks.io.networks import build_model
from tasks.training.batches import Positions
from tasks.training.samplers.shuffled import ShuffledBatches
from tests.tasks.training.steps import train_steps

INPUTS = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))


def fetch(positions: Positions) -> tuple[Tensor, Tensor]:
    return INPUTS[torch.from_numpy(positions)], torch.from_numpy(positions % 3)


def trained(cuts: list[int], disturbed: bool) -> Tensor:
    """Return the weights of a dropout network after 8 steps, made in pieces."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.5), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for start, stop in zip([0, *cuts], [*cuts, 8], strict=True):
        if disturbed:
            torch.rand(7)
        train_steps(model, optimizer, fetch, ShuffledBatches(np.arange(40) % 3, 3, 10), start, stop)
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_dropout_is_the_same_in_pieces_and_after_other_draws() -> None:
    whole = trained([], disturbed=False)
    assert torch.equal(trained([3, 5], disturbed=True), whole)


def test_dropout_differs_from_step_to_step() -> None:
    dropout, seen = nn.Dropout(0.5), []

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            kept = dropout(torch.ones(64))
            seen.append(kept)
            return self.last(x)  # type: ignore[no-any-return]  # torch's stub

    model = Watched()
    train_steps(
        model, torch.optim.SGD(model.parameters(), lr=0.1), fetch, ShuffledBatches(np.arange(40) % 3, 3, 10), 0, 2
    )
    assert not torch.equal(seen[0], seen[1])


def test_fresh_weights_do_not_race_between_threads() -> None:
    def weights(seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        model = build_model("small-cnn", {}, seed)
        return torch.cat([p.detach().flatten() for p in model.parameters()]).numpy()

    expected = [weights(seed) for seed in range(4)]
    for _ in range(5):
        with ThreadPoolExecutor(4) as pool:
            for seed, found in enumerate(pool.map(weights, range(4))):
                np.testing.assert_array_equal(found, expected[seed])
