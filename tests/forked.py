"""Processes that tests kill, forked from a server that has imported torch and our code once.

Each is a real process with its own memory. Only its start is cheap: a new interpreter imports for two to four seconds.
"""

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess

PRELOADED = ("torch", "tasks.recording", "tests.conftest", "tests.tasks.recording.conftest", "tests.forked")
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(list(PRELOADED))

IMPORTED_BY, IMPORTED_AFTER = os.getpid(), frozenset(sys.modules)  # in a forked process: by the server


@contextmanager
def forked(function: Callable[..., None], *given: object) -> Iterator[BaseProcess]:
    """Run a top-level function in a process of its own, with the environment of this moment; kill it at the end."""
    process = CONTEXT.Process(target=_begin, args=(dict(os.environ), function, given))
    process.start()
    try:
        yield process
    finally:
        if process.is_alive():
            process.kill()
        process.join()


def ended(process: BaseProcess, patience: float = 600.0) -> int:
    """Wait for a process and return its exit code, negative for a signal."""
    process.join(patience)
    assert process.exitcode is not None, "it still runs"
    return process.exitcode


def _begin(environment: dict[str, str], function: Callable[..., None], given: tuple[object, ...]) -> None:
    """Call the function in the environment of the test."""
    assert os.getppid() == IMPORTED_BY, "the server did not import what is forked"
    os.environ.clear()
    os.environ.update(environment)
    function(*given)
