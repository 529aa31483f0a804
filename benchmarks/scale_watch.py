"""What a piece of work took: time of all its processes, bytes read, peak memory of each process and of their sum."""

import json
import math
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

Line = dict[str, Any]  # Any: JSON

EVERY = 0.05  # seconds between two looks at the memory


@dataclass
class Spent:
    """Seconds, bytes asked of the kernel (its cache answers some), over this process and its children."""

    wall: float = 0.0
    cpu: float = 0.0
    read: float = 0.0


@dataclass
class Peaks:
    """Peaks of resident memory in MB: of the first process, of the largest other one, of all together.

    Each process counts with its own high-water mark, so that `together` bounds what they held at one time.
    """

    main: float = 0.0
    worker: float = 0.0
    together: float = 0.0

    def add(self, main: float, others: list[float]) -> None:
        """Look once more."""
        self.main, self.worker = max(self.main, main), max(self.worker, *others, 0)
        self.together = max(self.together, main + sum(others))


@contextmanager
def spending() -> Iterator[Spent]:
    """Measure a block; no child may start or end in it."""
    spent, started, (cpu, read) = Spent(), time.perf_counter(), _totals()
    yield spent
    spent.wall = time.perf_counter() - started
    after = _totals()
    spent.cpu, spent.read = after[0] - cpu, after[1] - read


def watch(module: str, arguments: Sequence[str], log: Path, *, limit: float = math.inf) -> Iterator[Line]:
    """Run a module of ours as a program, and yield each JSON line that it prints with the peaks since the one before.

    Parameters
    ----------
    module, arguments : `python -m module arguments`
    log : gets what it says on standard error
    limit : MB that its processes may hold together; they are killed where they hold more

    Raises
    ------
    RuntimeError : it held more than the limit, or ended with another exit code than 0
    """
    command = [sys.executable, "-m", module, *arguments]
    with log.open("a") as errors, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as run:
        assert run.stdout is not None
        root, peaks, rest, ended = psutil.Process(run.pid), Peaks(), b"", False
        while not ended:
            peaks.add(*_peaks(root))
            if peaks.together > limit:
                for process in (*root.children(recursive=True), root):
                    process.kill()
                raise RuntimeError(f"{' '.join(command)} held {peaks.together:.0f} MB, {limit:.0f} are allowed")
            if select.select([run.stdout], [], [], EVERY)[0]:
                found = os.read(run.stdout.fileno(), 1 << 16)
                ended, (*lines, rest) = not found, (rest + found).split(b"\n")
                for line in lines:
                    yield {**json.loads(line), **asdict(peaks)}
                    peaks = Peaks()
    if run.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {run.returncode}; {log} has what it said")


def slope(sizes: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Return the exponent b of values = a sizes^b by least squares on logarithms, and its standard error; or NaN."""
    if len(set(sizes)) < 3 or min(values) <= 0:
        return float("nan"), float("nan")
    x, y = np.log(sizes), np.log(values)
    x -= x.mean()
    b = (x @ y) / (x @ x)
    residuals = y - y.mean() - b * x
    return float(b), float(np.sqrt(residuals @ residuals / (len(x) - 2) / (x @ x)))


def _totals() -> tuple[float, float]:
    """Return CPU seconds and bytes read by this process and its children so far."""
    here = psutil.Process()
    cpu = read = 0.0
    for process in (here, *here.children(recursive=True)):
        times = process.cpu_times()
        cpu += times.user + times.system
        read += process.io_counters().read_chars
    return cpu, read


def _peaks(root: psutil.Process) -> tuple[float, list[float]]:
    """Return the high-water marks of a process and of those below it, in MB."""
    try:
        return _mark(root.pid), [_mark(child.pid) for child in root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0, []


def _mark(pid: int) -> float:
    """Return the high-water mark of a process, in MB; 0 where it has just ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0.0)
