"""Loads libraries in the process that workers are forked from.

That process imports it by its own name: an import of `tasks` would decide for all workers in which folder that is.
A library that cannot be loaded is left for the worker that needs it, which reports the error in a line.
"""

import contextlib
import importlib
import json
import multiprocessing
import os
import sys
import time
from pathlib import Path
from types import TracebackType

PROGRAM = os.getppid()  # whose workers are forked here
ENDING = 5.0  # seconds that a program may take to end after it has given back what its workers share
GIVEN = "LAYERLORE_AHEAD"  # JSON: names of libraries, and the former values of variables, null where there was none


def load(libraries: list[str], before: dict[str, str | None]) -> None:
    """Load libraries, and restore the environment that programs of the workers get."""
    for name in libraries:
        with contextlib.suppress(Exception, SystemExit):
            importlib.import_module(name)
    restore(before)
    os.register_at_fork(after_in_child=_draw_own_numbers)
    sys.excepthook = _left_alone


def restore(before: dict[str, str | None]) -> None:
    """Give variables of this process their former values."""
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def _left_alone(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say nothing of what a worker misses as it starts while its program ends: what both would share is gone."""
    last = trace
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    inside = last is not None and Path(last.tb_frame.f_code.co_filename).parent == Path(multiprocessing.__file__).parent
    lost = inside and isinstance(error, FileNotFoundError | ConnectionError | EOFError)
    until = time.monotonic() + ENDING
    while lost and not _ended(PROGRAM) and time.monotonic() < until:
        time.sleep(0.05)
    if not (lost and _ended(PROGRAM)):
        sys.__excepthook__(kind, error, trace)


def _ended(process: int) -> bool:
    """Return whether a process has ended, on Linux."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "XZ"
    except OSError:
        return True


def _draw_own_numbers(server: int = os.getpid()) -> None:
    """Give a worker random numbers of its own, where its code draws some without a seed, as a spawned one has."""
    torch = sys.modules.get("torch")
    if torch is not None and os.getppid() == server:
        torch.default_generator.seed()


if given := os.environ.get(GIVEN):
    load(**json.loads(given))
