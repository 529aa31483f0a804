"""A watchdog process, which ends a child of this process after this process has ended, even by kill -9."""

import os
import signal
import sys

WATCH = """
import os, signal, sys
handle = os.pidfd_open(int(sys.argv[1]))
os.read(0, 1)
signal.pidfd_send_signal(handle, signal.SIGTERM)
"""


def end_with_us(pid: int) -> None:
    """Send SIGTERM to a child of this process when this process ends; do nothing where the system is not Linux.

    A third process waits at the end of a pipe whose other end only this process has. It holds a handle of the child,
    and never ends another process that has the same number later.
    """
    if not hasattr(os, "pidfd_open"):
        return
    end, _ = os.pipe()  # the other end stays open until this process ends
    silent = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_WRONLY, 0) for stream in (1, 2)]
    command = [sys.executable, "-I", "-S", "-c", WATCH, str(pid)]
    actions = [(os.POSIX_SPAWN_DUP2, end, 0), *silent]
    os.posix_spawn(sys.executable, command, {}, file_actions=actions, setsigmask=[signal.SIGINT])  # not of Ctrl-C
    os.close(end)
