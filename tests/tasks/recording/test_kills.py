"""Kill -9 at random moments of a recording: what is left goes on to the same weights and the same files."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

STEPS, EVERY, KILLS = 72, 6, 6

# One process imports torch and then forks a child per attempt, so that a kill costs no new start.
SCRIPT = f"""
import json, os, sys, traceback
from pathlib import Path
import torch
from tests.tasks.recording.conftest import Training, file_digests
from tasks.recording import UpdateRecorder

def attempt(store):
    torch.set_num_threads(1)
    training = Training(lambda model: torch.optim.AdamW(model.parameters(), lr=0.01))
    state = training.recorded(Path(store), {STEPS}, {EVERY})
    weights = {{name: value.double().sum().item().hex() for name, value in state.items()}}
    Path(store + ".json").write_text(json.dumps([weights, file_digests(Path(store))]))

for line in sys.stdin:
    child = os.fork()
    if not child:
        try:
            attempt(line.strip())
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


class Forks:
    """Starts attempts and tells how they ended."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def start(self, store: Path) -> int:
        """Start an attempt and return its process."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{store}\n")
        self.process.stdin.flush()
        return self._number()

    def end(self) -> int:
        """Return the exit code of the attempt, negative for a signal."""
        return self._number()

    def _number(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())


def segments(store: Path) -> int:
    """Return how many segments of a recording are complete."""
    return len(list(store.glob("updates/*/markers/0*")))


def kill_within(child: int, store: Path, more: int, pause: float) -> None:
    """Kill an attempt some seconds after it has recorded so many segments more, unless it ends before."""
    wanted = segments(store) + more
    while segments(store) < wanted and psutil.pid_exists(child):
        time.sleep(0.002)
    time.sleep(pause)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kills_change_neither_weights_nor_files(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=Path.cwd()
    ) as process:
        forks = Forks(process)
        forks.start(tmp_path / "whole")
        assert forks.end() == 0
        started = time.perf_counter()
        forks.start(tmp_path / "again")
        assert forks.end() == 0
        segment = (time.perf_counter() - started) * EVERY / STEPS

        rng, killed, resumed, enough, code = random.Random(0), 0, 0, False, -1
        stores = [tmp_path / "killed-0"]
        while not enough or code != 0:
            resumed += segments(stores[-1]) > 0
            child = forks.start(stores[-1])
            if not enough:
                kill_within(child, stores[-1], rng.randrange(3), rng.uniform(0, 2) * segment)
            code = forks.end()
            assert code in (0, -signal.SIGKILL)
            killed += code != 0
            enough = killed >= KILLS and resumed >= KILLS // 2
            if code == 0 and not enough:  # it was done before the kill
                stores.append(tmp_path / f"killed-{len(stores)}")
        assert process.stdin is not None
        process.stdin.close()
    whole = json.loads((tmp_path / "whole.json").read_text())
    for name in ("again", *(store.name for store in stores)):
        assert json.loads((tmp_path / f"{name}.json").read_text()) == whole
    assert sum(name.endswith("ledger.parquet") for name in whole[1]) == STEPS // EVERY
