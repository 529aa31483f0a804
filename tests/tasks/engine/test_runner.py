"""Prefect's own server: it ends with the run that started it, however that ends."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from storage.stores import open_store
from tasks.engine import runner
from tasks.steps.interpretation.features import FEATURES
from tests.plans import cells, references

if TYPE_CHECKING:
    from tests.conftest import Run

PATIENCE = 240  # seconds

pytestmark = pytest.mark.timeout(900)


def start(program: str, **environment: str) -> "subprocess.Popen[str]":
    """Run a program in a process of its own."""
    settings = {**os.environ, **environment}
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=settings)


def line(process: "subprocess.Popen[str]") -> str:
    """Return the next line that a process prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def kill(process: "subprocess.Popen[str]") -> None:
    """Kill a process, which then cannot clean up."""
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def gone(found: psutil.Process) -> bool:
    """Wait until a process has ended; a zombie counts."""
    until = time.monotonic() + PATIENCE
    with contextlib.suppress(psutil.NoSuchProcess):
        while found.is_running() and found.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > until:
                found.kill()
                return False
            time.sleep(0.05)
    return True


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")
def test_a_child_ends_when_its_parent_is_killed() -> None:
    program = (
        "import signal, subprocess, sys, time\nfrom tasks.engine.watchdog import end_with_us\n"
        "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"  # a shell that starts us in the background lets us ignore it
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], stdout=subprocess.DEVNULL)\n"
        "end_with_us(child.pid)\nprint(child.pid, flush=True)\ntime.sleep(600)"
    )
    parent = start(program)
    child = psutil.Process(int(line(parent)))
    watcher = next(p for p in psutil.Process(parent.pid).children() if p.pid != child.pid)
    watcher.send_signal(signal.SIGINT)  # as a terminal does to all
    time.sleep(0.5)  # it has none to act on
    assert watcher.status() != psutil.STATUS_ZOMBIE
    assert child.status() != psutil.STATUS_ZOMBIE
    kill(parent)
    assert gone(child)
    assert gone(watcher)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")
def test_a_parent_that_ends_its_child_itself_leaves_nothing_and_says_nothing() -> None:
    program = (
        "import psutil, subprocess, sys\nfrom tasks.engine.watchdog import end_with_us\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\nend_with_us(child.pid)\n"
        "print(*(p.pid for p in psutil.Process().children() if p.pid != child.pid))\nchild.terminate()\nchild.wait()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    with contextlib.suppress(psutil.NoSuchProcess):
        assert gone(psutil.Process(int(done.stdout)))


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_child_ends_when_its_parents_group_is_killed(sent: signal.Signals) -> None:
    program = (
        "import subprocess, sys, time\nfrom tasks.engine.watchdog import end_with_us\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], stdout=subprocess.DEVNULL,"
        " start_new_session=True)\nend_with_us(child.pid)\nprint(child.pid, flush=True)\ntime.sleep(600)"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as parent:
        child = psutil.Process(int(line(parent)))
        os.killpg(parent.pid, sent)  # as `timeout` and shells do
    assert gone(child)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")
def test_a_child_that_ignores_the_first_signal_ends_too() -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
    program = (
        "import subprocess, sys, time\nfrom tasks.engine.watchdog import end_with_us\n"
        f"child = subprocess.Popen([sys.executable, '-c', {deaf!r}], stdout=subprocess.PIPE)\nchild.stdout.readline()\n"
        "end_with_us(child.pid, 0.2)\nprint(child.pid, flush=True)\ntime.sleep(600)"
    )
    parent = start(program)
    child = psutil.Process(int(line(parent)))
    kill(parent)
    assert gone(child)


@pytest.mark.cluster
@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")
@pytest.mark.parametrize("before", ["", "server._answers_in_time = started"], ids=["answers", "starts"])
def test_prefects_server_ends_when_the_run_is_killed(tmp_path: Path, before: str) -> None:
    program = (
        "import time\nfrom configs.load import prefect_defaults\nprefect_defaults()\n"
        "from tasks.engine import runner, server\n"
        "def started(*_):\n    print('started', flush=True)\n    time.sleep(600)\n"
        f"{before}\nrunner.start_prefect()\nstarted()"
    )
    parent = start(program, PREFECT_HOME=str(tmp_path))
    assert line(parent) == "started"
    children = psutil.Process(parent.pid).children()
    (server,) = [p for p in children if "uvicorn" in p.cmdline()]
    kill(parent)
    assert all(gone(process) for process in (server, *children))


def test_a_stage_of_two_roles_is_counted_once(
    finished_run: "Run", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named: list[str] = []
    made: list[str] = []

    class Recorded:
        """Prefect's task, which keeps its names and what it is given."""

        def with_options(self, **options: object) -> "Recorded":
            named.append(str(options["task_run_name"]))
            return self

        def __call__(self, work: Any) -> None:  # Any: Prefect's quote
            made.extend(spec.path for spec in work.unquote()[2])

    monkeypatch.setattr(runner, "_complete", Recorded())
    plan, job = finished_run.plan, replace(finished_run.job, store=open_store(str(tmp_path / "empty"), create=True))
    fitted = [*references(plan).values(), *(cell.features for cell in cells(plan))]
    paths = {spec.path for spec in fitted}
    assert len(fitted) > len(paths)  # a coreset of everything is the reference
    runner.run_step(job, FEATURES, fitted)
    assert named == [f"features: {len(paths)} stages"]
    assert sorted(made) == sorted(paths)
    runner.run_step(job, FEATURES, [fitted[0], fitted[0]])
    assert named[1] == f"features: {fitted[0].label}"
