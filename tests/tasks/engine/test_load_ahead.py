"""What workers need is loaded in another process while a run begins, which ends with the run."""

import subprocess
import sys

import psutil
import pytest

PROGRAM = """
import signal, sys
from types import SimpleNamespace
import psutil
from tasks.engine.life import load_ahead

networks = {"a": SimpleNamespace(train=None)}
for kind in sys.argv[1:]:
    kind, _, env = kind.partition("+")
    cluster = SimpleNamespace(kind=kind, workers=2, arguments={"env": {"A": "1"}} if env else {})
    load_ahead(SimpleNamespace(cluster=cluster, networks=networks, interpretation=1))
print(*(child.pid for child in psutil.Process().children() if "forkserver" in " ".join(child.cmdline())), flush=True)
signal.pause()
"""


def start(*kinds: str) -> "tuple[subprocess.Popen[str], list[psutil.Process]]":
    """Return a program that is going to run, and the processes in which it loads libraries."""
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, *kinds], stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    return program, [psutil.Process(int(number)) for number in program.stdout.readline().split()]


@pytest.mark.slow  # it loads torch
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are forked on Linux only")
def test_the_process_that_loads_ends_with_a_killed_run() -> None:
    program, found = start("serial", "threads", "local", "local")
    with program:
        program.kill()
    assert len(found) == 1
    assert psutil.wait_procs(found, timeout=60)[1] == []


def test_runs_without_worker_processes_load_nothing_ahead() -> None:
    program, found = start("serial", "threads", "address", "dask_jobqueue.SLURMCluster", "local+env")
    with program:
        program.kill()
    assert found == []
