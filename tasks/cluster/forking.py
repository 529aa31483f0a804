"""Worker processes that are forked from one process, which loads the libraries of a run once for all of them."""

import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

from tasks.cluster.clusters import interrupts_stay_here

METHOD = "distributed.worker.multiprocessing-method"
SAFE = "PYTHONSAFEPATH"
ENVIRON = f"distributed.nanny.environ.{SAFE}"  # of workers, unless this process has the variable
USUAL = "spawn"  # of Dask, where its settings say nothing else
# Threads that a library starts as it is loaded would not reach a forked process; Dask starts workers with the same.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# A file in the present folder that has the name of a library is not the library. Workers may start other programs.
VARIABLES = {**dict.fromkeys(THREADS, "1"), SAFE: "1"}
_STARTED = list[int]()  # the number of the process in which workers are forked; a forked one starts none


def start_loading(libraries: Sequence[str]) -> int | None:
    """Start a process that loads libraries while this one goes on; its later workers are forked from it.

    For a program with one run: workers get the environment variables of this moment.

    Returns
    -------
    number of the process, which ends by itself soon after this one; None where there is none, since a process that has
    loaded libraries cannot safely be forked, as on macOS
    """
    if not sys.platform.startswith("linux"):
        return None
    from multiprocessing import forkserver

    multiprocessing.get_context("forkserver").set_forkserver_preload(["distributed", *libraries])
    with suppress(OSError), interrupts_stay_here(), _variables():  # such as a path that is too long for its socket
        forkserver.ensure_running()
        _STARTED[:] = [os.getpid()]
        number: int | None = getattr(forkserver._forkserver, "_forkserver_pid", None)  # without a public name
        return number
    return None


def forked_workers() -> AbstractContextManager[object]:
    """Let Dask fork the workers that it starts in the block, if `start_loading` came before."""
    import dask

    if os.getpid() in _STARTED and dask.config.get(METHOD, USUAL) == USUAL:
        forked: AbstractContextManager[object] = dask.config.set({METHOD: "forkserver", ENVIRON: ""})
        return forked
    return nullcontext()


@contextmanager
def _variables() -> Iterator[None]:
    """Set environment variables for a process that starts in the block, unless they have a value."""
    added = {name: value for name, value in VARIABLES.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
