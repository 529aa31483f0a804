import threading
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import nn

from storage.checksums import Bytes
from tasks.recording import staging
from tasks.recording.layers import choose_layers, recorded_parameters
from tasks.recording.staging import BLOCKS, Process, StagedRows


def staged(model: nn.Module, steps: int, process: Process) -> StagedRows:
    _, parameters, places = recorded_parameters(choose_layers(model))
    return StagedRows(parameters, places, steps, process)


def fill(model: nn.Linear, value: float) -> None:
    with torch.no_grad():
        model.weight.fill_(value)


def weights(rows: Bytes) -> list[float]:
    """The first weight of each row."""
    return [float(value) for value in np.atleast_2d(rows)[:, :4].copy().view(np.float32)[:, 0]]


@pytest.mark.parametrize("steps", [1, 5, 64, 65, 300])
def test_rows_come_in_order_with_the_row_before(steps: int) -> None:
    model, seen = nn.Linear(3, 2, bias=False), [0.0]

    def process(rows: Bytes, previous: Bytes) -> None:
        assert weights(previous) == seen[-1:]
        seen.extend(weights(rows))

    fill(model, 0)
    rows = staged(model, steps, process)
    for step in range(1, steps + 1):
        fill(model, step)
        rows.push()
    rows.close()
    assert seen == list(range(steps + 1))


@dataclass
class FakeTime:
    """A clock that stands still, and says when it was asked."""

    now: float = 0.0
    asked: threading.Event = field(default_factory=threading.Event)

    def perf_counter(self) -> float:
        now = self.now
        self.asked.set()
        return now


def test_the_training_waits_where_the_disk_is_slow_and_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "MOST_ROWS", 1)
    monkeypatch.setattr(staging, "time", clock := FakeTime())
    gate, processed = threading.Event(), []

    def process(rows: Bytes, previous: Bytes) -> None:
        assert gate.wait(60)
        processed.append(len(rows))

    def be_slow() -> None:
        assert clock.asked.wait(60)
        clock.now = 3.0
        gate.set()

    model = nn.Linear(3, 2)
    rows = staged(model, 50, process)
    for _ in range(BLOCKS):
        rows.push()  # as many as there is memory for
    assert processed == []
    assert rows.waited_seconds == 0
    clock.asked.clear()
    disk = threading.Thread(target=be_slow)
    disk.start()
    rows.push()
    assert processed
    assert rows.waited_seconds == 3.0
    disk.join()
    rows.close()
    assert sum(processed) == BLOCKS + 1


def test_a_failure_is_raised_at_the_next_check_and_nothing_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "MOST_ROWS", 1)

    def process(rows: Bytes, previous: Bytes) -> None:
        raise OSError("disk full")

    rows = staged(nn.Linear(3, 2), 50, process)
    for _ in range(3 * BLOCKS):
        rows.push()  # more than there is memory for: the failure has come before the last
    with pytest.raises(OSError, match="disk full"):
        rows.check()
    with pytest.raises(OSError, match="disk full"):
        rows.close()
