"""Worker processes that are forked from one process, which loads the libraries of a run once for all of them."""

import json
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

from tasks.cluster.ahead import layerlore_ahead
from tasks.cluster.clusters import interrupts_stay_here

METHOD = "distributed.worker.multiprocessing-method"
USUAL = "spawn"  # of Dask, where its settings say nothing else
BEFORE = "distributed.nanny.pre-spawn-environ"  # variables that are read as a process starts, or as it loads libraries
ONE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
DASKS_OWN = {"MALLOC_TRIM_THRESHOLD_": "65536", **ONE}  # its defaults, which the process has or does not need
VARIABLES = {
    "PYTHONHASHSEED": "6640",  # Dask's choice for all workers
    "PYTHONSAFEPATH": "1",  # a file in the present folder that has the name of a library is not the library
    "JE_ARROW_MALLOC_CONF": "background_thread:false",  # a thread would not be in the forked processes
}
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

    multiprocessing.get_context("forkserver").set_forkserver_preload(["layerlore_ahead"])
    with suppress(OSError), interrupts_stay_here(), _variables(libraries):  # such as a path too long for its socket
        forkserver.ensure_running()
        _STARTED[:] = [os.getpid()]
        number: int | None = getattr(forkserver._forkserver, "_forkserver_pid", None)  # without a public name
        return number
    return None


def forked_workers() -> AbstractContextManager[object]:
    """Let Dask fork the workers that it starts in the block, if `start_loading` came before.

    Not where Dask's own settings say how workers start, or set variables that have an effect before that only.
    """
    import dask

    variables = {name: str(value) for name, value in dask.config.get(BEFORE, DASKS_OWN).items()}
    usual = dask.config.get(METHOD, USUAL) == USUAL and variables == DASKS_OWN
    if os.getpid() in _STARTED and usual:
        forked: AbstractContextManager[object] = dask.config.set({METHOD: "forkserver"})
        return forked
    return nullcontext()


@contextmanager
def _variables(libraries: Sequence[str]) -> Iterator[None]:
    """Set the variables of a process that starts in the block; it restores them itself once it has loaded libraries."""
    wanted = {**VARIABLES, **{name: value for name, value in ONE.items() if name not in os.environ}}
    place = str(Path(layerlore_ahead.__file__).parent)
    wanted["PYTHONPATH"] = os.pathsep.join([place, *filter(None, [os.environ.get("PYTHONPATH")])])
    before = {name: os.environ.get(name) for name in [*wanted, layerlore_ahead.GIVEN]}
    wanted[layerlore_ahead.GIVEN] = json.dumps({"libraries": ["distributed", *libraries], "before": before})
    os.environ.update(wanted)
    try:
        yield
    finally:
        layerlore_ahead.restore(before)
