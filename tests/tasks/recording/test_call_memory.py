"""Memory of a module that one step calls many times: counted by torch's profiler, and what a plan says of it."""

from itertools import accumulate
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from tasks.recording import UpdateRecorder, open_updates
from tasks.recording.calls import call_numbers
from tasks.recording.layers import choose_layers
from tasks.recording.programs import Row, step_row
from tasks.recording.traced import TracedSource
from tests.tasks.recording.conftest import Repeated

BATCH, WIDTH, LENGTH = 8, 48, 3
VALUES = 4 * WIDTH * (2 * WIDTH + 2)  # of an LSTM
SHARED = WIDTH * WIDTH + WIDTH


class Again(nn.Module):
    """Reads a sequence with one LSTM several times, and maps its answers with one linear layer as often."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.calls, self.read = calls, nn.LSTM(WIDTH, WIDTH, batch_first=True)
        self.shared, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        for _ in range(self.calls):
            x = self.shared(self.read(x)[0]).tanh()
        found: Tensor = self.head(x.mean(1))
        return found


class Course:
    """Two steps of a training."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    def model(self) -> Again:
        torch.manual_seed(0)
        return Again(self.calls)

    def program(self) -> Repeated:
        model = self.model()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)

        def step(row: Row) -> None:
            inputs = torch.randn(BATCH, LENGTH, WIDTH, generator=torch.Generator().manual_seed(row.step))
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), torch.arange(BATCH) % 3)
            loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
            optimizer.step()

        return model, optimizer, step

    def source(self, store: Path) -> TracedSource:
        """Record, and return what reads it."""
        model, optimizer, step = self.program()
        with UpdateRecorder(model, optimizer, store, kind="replay", program=self.program) as recorder:
            for number in range(2):
                with recorder.step(list(range(BATCH))):
                    step(step_row(number))
        return TracedSource(open_updates(str(store), program=self.program), self.model())


def peak(source: TracedSource, layers: list[str], *, members: bool) -> int:
    """Return the largest number of bytes that tensors hold while a segment is repeated."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen:
        for block in source.blocks(source.segments()[0], layers, members=members):
            del block
    events = seen.profiler.kineto_results.events()
    held: list[int] = [event.nbytes() for event in events if event.name() == "[memory]"]
    return max(accumulate(held))


@pytest.fixture(scope="module")
def peaks(tmp_path_factory: pytest.TempPathFactory) -> dict[int, int]:
    found, layers = {}, ["read.l0", "shared", "head"]
    for calls in (1, 2, 8):
        source = Course(calls).source(tmp_path_factory.mktemp(f"calls{calls}"))
        peak(source, layers, members=True)  # what a first use loads is not counted
        found[calls] = peak(source, layers, members=True) - peak(source, layers, members=False)
    return found


@pytest.mark.parametrize("calls", [1, 2, 8])
def test_the_peak_is_within_what_a_plan_counts(peaks: dict[int, int], calls: int) -> None:
    model = Again(calls)
    seen = call_numbers(model, choose_layers(model, None), torch.zeros(1, LENGTH, WIDTH))
    each = LENGTH * WIDTH
    state = 2 * WIDTH
    assert seen == calls * (each + each + state + each + each) + WIDTH + 3
    planned = 4 * BATCH * (2 * VALUES + seen)
    assert peaks[calls] >= 4 * BATCH * VALUES
    assert peaks[calls] <= planned + 4 * 8 * (VALUES + SHARED)  # some copies of weights, which the plan counts apart


def test_gradients_of_more_calls_do_not_add_up(peaks: dict[int, int]) -> None:
    seen = 4 * BATCH * 6 * (4 * LENGTH * WIDTH + 2 * WIDTH)  # of the six calls more
    assert peaks[8] - peaks[2] <= 2 * seen
    assert 2 * seen < 6 * 4 * BATCH * VALUES  # what a set of gradients for each call would take
