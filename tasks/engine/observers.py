"""The observers of a run: progress bars in a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from configs.load import visible
from tasks.engine.life import Observer

LINE_EVERY = 10.0  # seconds between two lines of one stage


class LineObserver:
    """An observer that prints plain lines, for logs and files.

    Parameters
    ----------
    every : seconds between two lines of one stage; 0 gives a line for each partition
    """

    def __init__(self, stream: TextIO, every: float = LINE_EVERY) -> None:
        self._stream, self._every = stream, every
        self._counts: dict[str, tuple[int, int]] = {}
        self._printed = 0.0

    def begin(self, title: str, total: int, done: int) -> None:
        self._counts[title] = (done, total)
        self.say(f"{title}: {total - done} of {total} partitions to do")

    def advance(self, title: str) -> None:
        done, total = self._counts[title]
        self._counts[title] = (done + 1, total)
        if time.monotonic() - self._printed >= self._every:
            self.say(f"{title}: {done + 1} of {total}")

    def end(self, title: str, seconds: float) -> None:
        self.say(f"{title}: done in {seconds:.1f} s")

    def say(self, text: str) -> None:
        self._printed = time.monotonic()
        self._put(visible(text))

    def _put(self, line: str) -> None:
        """Print a line."""
        print(line, file=self._stream, flush=True)


class LogObserver(LineObserver):
    """An observer that gives the same lines to a function."""

    def __init__(self, put: Callable[[str], None]) -> None:
        super().__init__(sys.stderr)
        self._give = put

    def _put(self, line: str) -> None:
        self._give(line)


class BarObserver:
    """An observer that shows a progress bar for each stage."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[str, TaskID] = {}

    def begin(self, title: str, total: int, done: int) -> None:
        if title in self._bars:  # a retry uses the same bar
            self._progress.update(self._bars[title], total=total, completed=done)
        else:
            self._bars[title] = self._progress.add_task(title, total=total, completed=done)

    def advance(self, title: str) -> None:
        self._progress.advance(self._bars[title])

    def end(self, title: str, seconds: float) -> None:
        self._progress.stop_task(self._bars[title])

    def say(self, text: str) -> None:
        self._progress.console.print(visible(text), markup=False, highlight=False)


@contextmanager
def terminal_observer(stream: TextIO = sys.stderr, *, verbose: bool = False) -> Iterator[Observer]:
    """Yield an observer: bars where `stream` is a terminal, lines elsewhere; if verbose, a line for each partition."""
    if verbose or not stream.isatty():
        yield LineObserver(stream, 0.0 if verbose else LINE_EVERY)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=stream)) as progress:
        yield BarObserver(progress)
