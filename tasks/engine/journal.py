"""The journal of a run: its log in the store, as a terminal would show it, and how long its stages took."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic

from configs.load import visible
from configs.secrets import without_passwords
from storage.documents import Document
from storage.runs import log_path
from storage.specs import StageSpec
from storage.stores import Store, StoreError
from tasks.engine.life import Observer
from tasks.engine.observers import LogObserver

WRITE_EVERY = 10.0  # seconds between two writes of the log
MANY = 1000  # lines of a log, which is written whole: a longer one is written less often


@dataclass
class Journal:
    """The log of a run in its store, and the time of each kind of stage.

    Attributes
    ----------
    name, time : of the run's record
    seconds : wall-clock time by kind of stage
    lines : of the log
    also : gets each line too
    """

    store: Store
    name: str
    time: str
    seconds: dict[str, float] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    written: float = field(default_factory=monotonic)
    also: Callable[[str], None] | None = None

    def note(self, text: str) -> None:
        """Add lines to the log."""
        moment = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        for line in map(without_passwords, text.splitlines()):
            self.lines.append(f"{moment} {visible(line)}")
            if self.also is not None:
                self.also(line)
        if monotonic() - self.written > WRITE_EVERY * max(1.0, len(self.lines) / MANY):
            self.write()

    def write(self) -> None:
        """Write the log to the store; a store that cannot be written must not end the run here."""
        self.written = monotonic()
        with suppress(OSError, StoreError):
            self.store.write(log_path(self.name, self.time), "".join(f"{line}\n" for line in self.lines).encode())

    def timings(self, made: Iterable[StageSpec]) -> Document:
        """Return the number of stages that the run made and their time, by kind."""
        kinds = [spec.stage for spec in made]
        return {
            kind: {"stages": kinds.count(kind), "seconds": round(seconds, 3)}
            for kind, seconds in self.seconds.items()
            if kind in kinds
        }


class JournalObserver:
    """An observer that passes calls on to another one and writes them into a journal."""

    def __init__(self, inner: Observer, journal: Journal) -> None:
        self._inner, self._journal, self._lines = inner, journal, LogObserver(journal.note)

    def begin(self, title: str, total: int, done: int) -> None:
        self._inner.begin(title, total, done)
        self._lines.begin(title, total, done)

    def advance(self, title: str) -> None:
        self._inner.advance(title)
        self._lines.advance(title)

    def end(self, title: str, seconds: float) -> None:
        self._inner.end(title, seconds)
        self._lines.end(title, seconds)
        kind = title.split()[0]
        self._journal.seconds[kind] = self._journal.seconds.get(kind, 0.0) + seconds

    def say(self, text: str) -> None:
        self._inner.say(text)
        self._lines.say(text)
