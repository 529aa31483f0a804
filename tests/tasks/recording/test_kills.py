"""Kill -9 at any moment of a recording: what is left goes on to the same weights and the same files.

A moment is an event of the recording, not a time: a step, a file that is written but has no name yet, one that has its
name. So a kill falls where it is meant to on any machine, however busy.
"""

import itertools
import json
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tasks.recording import ARCHIVES
from tests.forked import ended, forked
from tests.tasks.recording.conftest import Training, file_digests

STEPS, EVERY, KILLS = 72, 6, 6
FARTHEST = 1.5  # segments that an attempt makes at most: KILLS of them do not reach the end


def watch(last: int) -> Iterator[int]:
    """Let this process kill itself at the event of a number, 0 for never; return the counter."""
    events, replace, update = itertools.count(1), Path.replace, Training.update

    def happen() -> None:
        if next(events) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    def named(file: Path, target: Path) -> Path:
        happen()
        found = replace(file, target)
        happen()
        return found

    def step(training: Training, model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> Tensor:
        loss = update(training, model, optimizer, number)
        happen()
        return loss

    Path.replace, Training.update = named, step  # type: ignore[method-assign,assignment]  # of this process alone
    return events


def record(store: Path, last: int, kind: str) -> None:
    """Record until the end or the event of a number; write the weights, the files' digests and the count of events."""
    torch.set_num_threads(1)
    events = watch(last)
    training = Training(lambda model: torch.optim.AdamW(model.parameters(), lr=0.01))
    state = training.recorded(store, STEPS, EVERY, kind=kind, preflight=False)  # whose steps would count too
    made = next(events) - 1
    weights = {name: float(value.double().sum()).hex() for name, value in state.items()}
    Path(f"{store}.json").write_text(json.dumps([weights, file_digests(store)]))
    Path(f"{store}.events").write_text(str(made))


def attempt(store: Path, last: int = 0, kind: str = "dense") -> int:
    """Record until the end or the event of a number, in another process; return its exit code."""
    with forked(record, store, last, kind) as process:
        return ended(process)


def segments(store: Path) -> int:
    """Return how many segments of a recording are complete."""
    return len(list(store.glob("updates/*/markers/0*")))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ARCHIVES)
def test_kills_change_neither_weights_nor_files(tmp_path: Path, kind: str) -> None:
    rng, resumed, store = random.Random(0), 0, tmp_path / "killed"
    for name in ("whole", "again"):
        assert attempt(tmp_path / name, kind=kind) == 0
    segment = int((tmp_path / "whole.events").read_text()) * EVERY / STEPS
    for number in range(KILLS):
        shortest = 0.0 if number else 1.2  # the first completes a segment, so that the others go on from one
        last = 1 + int(segment * rng.uniform(shortest, FARTHEST))
        resumed += segments(store) > 0
        assert attempt(store, last, kind) == -signal.SIGKILL
    assert attempt(store, kind=kind) == 0
    assert resumed >= KILLS - 1
    whole = json.loads((tmp_path / "whole.json").read_text())
    for name in ("again", "killed"):
        assert json.loads((tmp_path / f"{name}.json").read_text()) == whole
    assert sum(name.endswith("ledger.parquet") for name in whole[1]) == STEPS // EVERY
