"""A watchdog process, which ends a child of this process after this process has ended, even by kill -9."""

import os
import signal
import sys

PATIENCE = 10  # seconds between SIGTERM and SIGKILL: a server with an open request waits for its end
WATCH = """
import os, select, signal, sys
handle = os.pidfd_open(int(sys.argv[1]))
os.read(0, 1)
signal.pidfd_send_signal(handle, signal.SIGTERM)
if not select.select([handle], [], [], float(sys.argv[2]))[0]:
    signal.pidfd_send_signal(handle, signal.SIGKILL)
"""


def end_with_us(pid: int, patience: float = PATIENCE) -> None:
    """End a child of this process when this process ends; do nothing where the system is not Linux.

    The child gets SIGTERM, and SIGKILL if it still runs `patience` seconds later.

    A third process waits at the end of a pipe whose other end only this process has. It holds a handle of the child,
    and never ends another process that has the same number later. It has a session of its own, since a signal to the
    group of this process, as from `timeout` or a shell, would end it too.
    """
    if not hasattr(os, "pidfd_open"):
        return
    end, _ = os.pipe()  # the other end stays open until this process ends
    silent = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_WRONLY, 0) for stream in (1, 2)]
    command = [sys.executable, "-I", "-S", "-c", WATCH, str(pid), str(patience)]
    actions = [(os.POSIX_SPAWN_DUP2, end, 0), *silent]
    alone = [signal.SIGINT]  # of a terminal
    os.posix_spawn(sys.executable, command, {}, file_actions=actions, setsid=True, setsigmask=alone)
    os.close(end)
