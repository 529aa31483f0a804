"""A stop by a signal that cannot be lost.

Python raises a stop wherever the main thread is at that moment. In a finalizer it is printed and dropped, and a library
may take it for an error of its own. So the stop is also kept, and a run looks for it between two partitions.
"""

import signal
from types import FrameType

_seen: list[int] = []  # numbers of the signals that came


def keep_stops() -> None:
    """Keep each Ctrl-C of this process, and each SIGTERM, which batch systems send, and raise KeyboardInterrupt.

    A signal that the process ignores from its start, as the Ctrl-C of a shell's job in the background, stays ignored.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def check_stop() -> None:
    """Raise KeyboardInterrupt if a stop came before."""
    if _seen:
        raise KeyboardInterrupt


def _stop(number: int, frame: FrameType | None) -> None:
    """Keep a stop and raise it."""
    _seen.append(number)
    raise KeyboardInterrupt
