"""Start `layerlore` from a process that has imported it already, so that kills fall on work and not on imports.

    python -m benchmarks.kills.starter [--bare] [--packing SECONDS]   # reads lines {"arguments": [...], "log": PATH}

Each line forks a child that leads a process group of its own and runs the command as `layerlore` would. LOG gets its
output, LOG.pid its number, LOG.code its exit code, or -9 where it was killed. Ends with its input. `--bare` leaves
Prefect out, `--packing` lets each pack of partition records take so long and writes LOG.packing when one begins.
"""

import importlib
import json
import os
import select
import signal
import sys
import threading
from pathlib import Path

from benchmarks.kills.bare import leave_prefect_out
from benchmarks.kills.packing import slow_packing

NEEDED = (
    *("flows.command", "flows.run", "flows.session", "storage.s3", "tasks.steps.report", "storage.verify"),
    *("distributed", "distributed.diagnostics.plugin", "prefect.engine", "prefect.flow_engine", "prefect.task_engine"),
    *("sklearn.datasets", "pyarrow.dataset", "pandas.io.parquet", "narwhals.stable.v1"),
)
LOOK = 0.02  # seconds between two looks for children that have ended


def main() -> None:
    """Fork until the input ends; a child returns from here as the command."""
    from flows import cli

    for name in NEEDED:
        importlib.import_module(name)
    if "--bare" in sys.argv:
        leave_prefect_out()
    if "--packing" in sys.argv:
        slow_packing(float(sys.argv[sys.argv.index("--packing") + 1]), lambda: publish(Path(f"{output()}.packing"), 1))
    assert threading.active_count() == 1, "threads do not outlive a fork"
    living: dict[int, Path] = {}
    pending = b""
    while True:
        readable, _, _ = select.select([0], [], [], LOOK)
        more = os.read(0, 65536) if readable else b""
        if readable and not more:
            for pid in living:
                os.killpg(pid, signal.SIGKILL)
            return
        pending += more
        while b"\n" in pending:
            line, _, pending = pending.partition(b"\n")
            order = json.loads(line)
            if (pid := os.fork()) == 0:
                become(order["arguments"], Path(order["log"]))
                cli.main()
                return
            living[pid] = Path(order["log"])
            publish(Path(f"{order['log']}.pid"), pid)
        reap(living)


def become(arguments: list[str], log: Path) -> None:
    """Turn a forked child into the process that the command line would have started."""
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, stream in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, stream)
    sys.argv = ["layerlore", *arguments]


def output() -> str:
    """Return the path of the log of a command, which has become one."""
    return os.readlink("/proc/self/fd/1")


def reap(living: dict[int, Path]) -> None:
    """Write down the codes of children that have ended."""
    while living:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        publish(Path(f"{living.pop(pid)}.code"), os.waitstatus_to_exitcode(status))


def publish(path: Path, number: int) -> None:
    """Write a file that is never seen half written."""
    partial = path.with_name(f"{path.name}.new")
    partial.write_text(str(number))
    partial.replace(path)


if __name__ == "__main__":
    main()
