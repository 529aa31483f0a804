"""A process that ends another one when this one is gone, however that came: kill -9 leaves no time to clean up."""

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
    """Let a process, a child of this one, get SIGTERM when this one has ended; where the system is not Linux, nothing.

    A third process waits at the end of a pipe of which only this one has the other. It holds a handle of the process
    to end, so that it never meets another one that has got the same number since.
    """
    if not hasattr(os, "pidfd_open"):
        return
    end, _ = os.pipe()  # the other end stays open as long as we live
    silent = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_WRONLY, 0) for stream in (1, 2)]
    command = [sys.executable, "-I", "-S", "-c", WATCH, str(pid)]
    actions = [(os.POSIX_SPAWN_DUP2, end, 0), *silent]
    os.posix_spawn(sys.executable, command, {}, file_actions=actions, setsigmask=[signal.SIGINT])  # not of Ctrl-C
    os.close(end)
