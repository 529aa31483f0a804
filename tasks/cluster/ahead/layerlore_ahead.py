"""Loads libraries in the process that workers are forked from.

That process imports it by its own name: an import of `tasks` would decide for all workers in which folder that is.
A library that cannot be loaded is left for the worker that needs it, which reports the error in a line.
"""

import contextlib
import importlib
import json
import os
import sys
from pathlib import Path
from types import TracebackType

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
    """Say nothing where the program has ended while a worker of it starts: what it would share is gone."""
    last = trace
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    inside = last is not None and Path(last.tb_frame.f_code.co_filename).parent.name == "multiprocessing"
    if not (inside and isinstance(error, FileNotFoundError | ConnectionError | EOFError)):
        sys.__excepthook__(kind, error, trace)


def _draw_own_numbers(server: int = os.getpid()) -> None:
    """Give a worker random numbers of its own, where its code draws some without a seed, as a spawned one has."""
    torch = sys.modules.get("torch")
    if torch is not None and os.getppid() == server:
        torch.default_generator.seed()


if given := os.environ.get(GIVEN):
    load(**json.loads(given))
