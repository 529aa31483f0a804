"""A stop that comes while Python cannot raise it ends the run all the same."""

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import os, signal
from tasks.engine.stops import check_stop, keep_stops

class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.{signal})
        sum(range(10))

signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests run in the background, it is ignored
keep_stops()
check_stop()  # none came
Finalized()  # Python prints and drops what is raised here
print("goes on", flush=True)
try:
    check_stop()
except KeyboardInterrupt:
    print("stopped")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_in_a_finalizer_is_not_lost(number: signal.Signals) -> None:
    program = PROGRAM.format(signal=number.name)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "Exception ignored" in ended.stderr
    assert ended.stdout.split("\n") == ["goes on", "stopped", ""]


FLOW = """
with capture_sigterm():  # what Prefect does in a flow
    inside = signal.getsignal(signal.SIGTERM)
    with keeping_stops():
        Finalized()
    assert signal.getsignal(signal.SIGTERM) is inside
"""


def test_a_stop_in_a_finalizer_of_a_flow_is_not_lost() -> None:
    program = PROGRAM.format(signal="SIGTERM").replace("import check_stop", "import check_stop, keeping_stops")
    program = program.replace("Finalized()  # Python prints and drops what is raised here", FLOW)
    program = "from prefect.utilities.engine import capture_sigterm\n" + program
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert "TerminationSignal" in ended.stderr
    assert ended.stdout.split("\n") == ["goes on", "stopped", ""], ended.stderr


def test_a_stop_is_raised_where_python_can() -> None:
    ended = run_program(
        "os.kill(os.getpid(), signal.SIGINT)", "signal.signal(signal.SIGINT, signal.default_int_handler)"
    )
    assert ended.stdout == ""
    assert "KeyboardInterrupt" in ended.stderr


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    """Shells start jobs in the background so."""
    ended = run_program("os.kill(os.getpid(), signal.SIGINT)", "signal.signal(signal.SIGINT, signal.SIG_IGN)")
    assert (ended.stdout, ended.stderr) == ("goes on\n", "")


def run_program(then: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program that keeps stops, then does something and says that it goes on."""
    imports = "import os, signal\nfrom tasks.engine.stops import keep_stops"
    program = "\n".join([imports, before, "keep_stops()", then, "print('goes on')"])
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
