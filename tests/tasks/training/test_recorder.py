"""What a recorder gets from each step, and that giving it changes nothing."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tasks.training.batches import Positions
from tasks.training.ghost_norm import with_ghost_norm
from tasks.training.loop import Row
from tasks.training.samplers.shuffled import ShuffledBatches
from tasks.training.samplers.single_class import SingleClassBatches
from tests.tasks.training.steps import train_steps

INPUTS = torch.randn((20, 4), generator=torch.Generator().manual_seed(1)) * 5
LABELS = np.arange(20) % 3
IDS = np.arange(20, dtype=np.int64) * 10 + 5


def fetch(positions: Positions) -> tuple[Tensor, Tensor]:
    return INPUTS[torch.from_numpy(positions)], torch.from_numpy(LABELS[positions])


@dataclass
class Heard:
    """What a step gave its recorder, and how the weights moved in it."""

    examples: list[int]
    ghosts: list[int]
    label: int
    epoch: int
    update: Tensor | None = None
    loss: float = float("nan")
    clip: float = float("nan")
    augmentation: int = -1


@dataclass
class Listening:
    """A recorder that remembers."""

    model: nn.Module
    heard: list[Heard] = field(default_factory=list)

    @contextmanager
    def step(
        self, examples: Positions, *, label: int = -1, epoch: int = 0, ghosts: Positions | Sequence[int] = ()
    ) -> Iterator[Row]:
        before = self.weights()
        row = Heard(np.asarray(examples).tolist(), np.asarray(ghosts).tolist(), label, epoch)
        yield row
        row.update = self.weights() - before
        self.heard.append(row)

    def weights(self) -> Tensor:
        return torch.cat([p.detach().flatten() for p in self.model.parameters()])


def test_a_recorder_sees_each_update_with_its_loss_and_clip_factor() -> None:
    model = nn.Linear(4, 3)
    recorder, batches = Listening(model), ShuffledBatches(LABELS, 0, 8)
    start = recorder.weights()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    losses = train_steps(model, optimizer, fetch, batches, 1, 7, clip=0.1, recorder=recorder, ids=IDS)
    assert [row.loss for row in recorder.heard] == losses
    assert [row.epoch for row in recorder.heard] == [0, 0, 1, 1, 1, 2]
    assert [row.examples for row in recorder.heard] == [IDS[batches.batch(t).examples].tolist() for t in range(1, 7)]
    updates = [row.update for row in recorder.heard if row.update is not None]
    torch.testing.assert_close(start + sum(updates), recorder.weights())
    for row, update in zip(recorder.heard, updates, strict=True):
        assert 0 < row.clip < 1
        assert update.norm().item() == pytest.approx(0.5 * 0.1, rel=1e-3)  # the clipped norm, times lr


@pytest.mark.parametrize("augmented", [False, True])
def test_the_seed_of_the_augmentation_is_told_where_there_is_one(augmented: bool) -> None:
    model = nn.Linear(4, 3)
    recorder, optimizer = Listening(model), torch.optim.SGD(model.parameters(), lr=0.1)
    augment = (lambda images, ids, epoch: images * 2) if augmented else None
    train_steps(model, optimizer, fetch, ShuffledBatches(LABELS, 77, 8), 0, 3, augment=augment, recorder=recorder)
    assert [row.augmentation for row in recorder.heard] == [77 if augmented else -1] * 3


def test_ghosts_are_told_where_they_matter_and_left_out_elsewhere() -> None:
    batches = SingleClassBatches(LABELS, 0, size=3, ghosts=4)
    for norm, expected in ((nn.BatchNorm1d(4), 4), (nn.Identity(), 0)):
        model = with_ghost_norm(nn.Sequential(norm, nn.Linear(4, 3)))
        recorder = Listening(model)
        train_steps(
            model, torch.optim.SGD(model.parameters(), lr=0.1), fetch, batches, 0, 5, recorder=recorder, ids=IDS
        )
        for step, row in enumerate(recorder.heard):
            batch = batches.batch(step)
            assert row.label == batch.label
            assert row.examples == IDS[batch.examples].tolist()
            assert row.ghosts == IDS[batch.ghosts][:expected].tolist()
            assert row.clip == 1.0


@pytest.mark.parametrize("name", ["shuffled", "ghosts"])
def test_recording_leaves_the_weights_as_they_are(name: str) -> None:
    results = []
    for recorded in (False, True):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.2), nn.Linear(6, 3))
        twin = with_ghost_norm(model) if name == "ghosts" else model
        batches = SingleClassBatches(LABELS, 0, size=3, ghosts=4) if name == "ghosts" else ShuffledBatches(LABELS, 0, 5)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        train_steps(twin, optimizer, fetch, batches, 0, 9, recorder=Listening(model) if recorded else None)
        results.append(model.state_dict())
    assert all(torch.equal(value, results[1][key]) for key, value in results[0].items())
