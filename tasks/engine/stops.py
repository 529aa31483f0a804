"""A stop by a signal that cannot be lost.

Python raises a stop wherever the main thread is at that moment. In a finalizer it is printed and dropped, and a library
may take it for an error of its own. So the stop is also kept, and a run looks for it between two partitions.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_keeps: list[int] = []  # signals that this process keeps
_seen: list[int] = []  # signals that came


def keep_stops() -> None:
    """Keep each Ctrl-C of this process, and each SIGTERM, which batch systems send, and raise KeyboardInterrupt.

    A signal that the process ignores from its start, as the Ctrl-C of a shell's job in the background, stays ignored.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)
            _keeps.append(number)


@contextmanager
def keeping_stops() -> Iterator[None]:
    """Keep SIGTERM in a block where another handler took the place of ours, as in a flow: that one is called too."""
    before = signal.getsignal(signal.SIGTERM)
    main = threading.current_thread() is threading.main_thread()  # only there can handlers change
    if signal.SIGTERM not in _keeps or not main or before is _stop or not callable(before):
        yield
        return

    def kept(number: int, frame: FrameType | None) -> None:
        _seen.append(number)
        before(number, frame)

    signal.signal(signal.SIGTERM, kept)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def check_stop() -> None:
    """Raise KeyboardInterrupt if a stop came before."""
    if _seen:
        raise KeyboardInterrupt


def _stop(number: int, frame: FrameType | None) -> None:
    """Keep a stop and raise it."""
    _seen.append(number)
    raise KeyboardInterrupt
