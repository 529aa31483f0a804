"""CPU time of several sides that do the same work, taken in turn within one process."""

import ctypes
import resource
import sys
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Generic, TypeVar

import psutil

T = TypeVar("T")
PATIENCE = 8.0  # CPU seconds; a side that has taken more is not called again
ROUND = 0.05  # CPU seconds of short calls that make one round
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
LONG = 0.5  # CPU seconds of a call that is not repeated within a round


@dataclass(frozen=True)
class Measured(Generic[T]):
    """What a side took and gave.

    Attributes
    ----------
    seconds : median CPU time of its calls, user and system, with those of child processes
    calls : their number
    result : of the last call
    """

    seconds: float
    calls: int
    result: T


@dataclass(frozen=True)
class Failed:
    """Why a side could not be measured, in one line."""

    reason: str


def cpu_seconds() -> float:
    """Return the CPU time of this process and of the children that it waited for."""
    spent = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in spent)


def _adopt(orphans: bool) -> None:
    """Let this process be the parent of processes below it whose own parent has ended, or no longer."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, int(orphans), 0, 0, 0)


@contextmanager
def adopting() -> Iterator[None]:
    """Wait, after the block, for all processes that it started, and for theirs; their CPU time counts from then on.

    On Linux this process gets those whose parent ends. Elsewhere only its own children count.
    """
    before = {child.pid for child in psutil.Process().children()}
    _adopt(True)
    try:
        yield
        while started := [child for child in psutil.Process().children() if child.pid not in before]:
            for child in started:
                child.wait()
    finally:
        _adopt(False)


def in_turn(sides: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, Measured[T] | Failed]:
    """Call every side once in each round, until it has taken PATIENCE; a side that raises gives its error."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    results: dict[str, T] = {}
    failed: dict[str, Failed] = {}
    for _ in range(rounds):
        for name, side in sides.items():
            if name in failed or sum(taken[name]) > PATIENCE:
                continue
            begin = cpu_seconds()
            try:
                results[name] = side()
            except Exception as error:  # whatever a peer raises becomes its row
                failed[name] = Failed(one_line(error))
            taken[name].append(cpu_seconds() - begin)
    return {name: failed.get(name) or Measured(median(taken[name]), len(taken[name]), results[name]) for name in sides}


def in_milliseconds(sides: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, Measured[T] | Failed]:
    """Measure sides of milliseconds: after a first call, each is called in a round as often as fits into ROUND."""
    counts = {name: _calls(side) for name, side in sides.items()}
    found = in_turn({name: _repeated(side, counts[name]) for name, side in sides.items()}, rounds)
    return {
        name: one if isinstance(one, Failed) else Measured(one.seconds / counts[name], one.calls, one.result)
        for name, one in found.items()
    }


def _calls(side: Callable[[], object]) -> int:
    """Return how often a side is called in a round; its libraries are loaded afterwards."""
    taken = 0.0
    for _ in range(2):
        begin = cpu_seconds()
        try:
            side()
        except Exception:  # in_turn makes a row of it
            return 1
        taken = cpu_seconds() - begin
        if taken > LONG:
            return 1
    return max(1, round(ROUND / max(taken, 1e-5)))


def _repeated(side: Callable[[], T], count: int) -> Callable[[], T]:
    """Return a function that calls a side several times."""

    def calls() -> T:
        for _ in range(count - 1):
            side()
        return side()

    return calls


def peak_megabytes(side: Callable[[], object]) -> float:
    """Return the largest amount that numpy held at once during a call, beyond what it held before, in MiB."""
    tracemalloc.start()
    side()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def one_line(error: BaseException) -> str:
    """Return an error as one short line."""
    text = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__
