"""Kill -9 at any moment of a recording: what is left goes on to the same weights and the same files.

A moment is an event of the recording, not a time: a step, a file that is written but has no name yet, one that has its
name. So a kill falls where it is meant to on any machine, however busy.
"""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

STEPS, EVERY, KILLS = 72, 6, 6
FARTHEST = 1.5  # segments that an attempt makes at most: KILLS of them do not reach the end

# One process imports torch and then forks a child per attempt, so that a kill costs no new start.
SCRIPT = f"""
import itertools, json, os, pathlib, signal, sys, traceback
from pathlib import Path
import torch
from tests.tasks.recording.conftest import Training, file_digests
from tasks.recording import UpdateRecorder

def watch(last):
    # Let this process kill itself at the event of this number, 0 for never; return the counter.
    events, replace, update = itertools.count(1), Path.replace, Training.update
    def happen():
        if next(events) == last:
            os.kill(os.getpid(), signal.SIGKILL)
    def named(self, target):
        happen()
        found = replace(self, target)
        happen()
        return found
    def step(self, *state):
        loss = update(self, *state)
        happen()
        return loss
    Path.replace, Training.update = named, step
    return events

def attempt(store, last):
    torch.set_num_threads(1)
    events = watch(last)
    training = Training(lambda model: torch.optim.AdamW(model.parameters(), lr=0.01))
    state = training.recorded(Path(store), {STEPS}, {EVERY})
    made = next(events) - 1
    weights = {{name: value.double().sum().item().hex() for name, value in state.items()}}
    Path(store + ".json").write_text(json.dumps([weights, file_digests(Path(store))]))
    Path(store + ".events").write_text(str(made))

for line in sys.stdin:
    store, last = json.loads(line)
    child = os.fork()
    if not child:
        try:
            attempt(store, last)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


def attempt(process: "subprocess.Popen[str]", store: Path, last: int = 0) -> int:
    """Record until the end, or until the event of a number; return the exit code, negative for a signal."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps([str(store), last]) + "\n")
    process.stdin.flush()
    return int(process.stdout.readline())


def segments(store: Path) -> int:
    """Return how many segments of a recording are complete."""
    return len(list(store.glob("updates/*/markers/0*")))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kills_change_neither_weights_nor_files(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    rng, resumed, store = random.Random(0), 0, tmp_path / "killed"
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=Path.cwd()
    ) as process:
        for name in ("whole", "again"):
            assert attempt(process, tmp_path / name) == 0
        segment = int((tmp_path / "whole.events").read_text()) * EVERY / STEPS
        for number in range(KILLS):
            shortest = 0.0 if number else 1.2  # the first completes a segment, so that the others go on from one
            last = 1 + int(segment * rng.uniform(shortest, FARTHEST))
            resumed += segments(store) > 0
            assert attempt(process, store, last) == -signal.SIGKILL
        assert attempt(process, store) == 0
        assert process.stdin is not None
        process.stdin.close()
    assert resumed >= KILLS - 1
    whole = json.loads((tmp_path / "whole.json").read_text())
    for name in ("again", "killed"):
        assert json.loads((tmp_path / f"{name}.json").read_text()) == whole
    assert sum(name.endswith("ledger.parquet") for name in whole[1]) == STEPS // EVERY
