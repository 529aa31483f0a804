"""A folder of checkpoints that grows: which of its files are whole, as far as their changes show."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from configs.concepts import Checkpoints
from tasks.steps.concepts.watched import checkpoint_files

OLD = 60.0  # seconds since the last change, after which a file that is first seen needs no second look

Signature = tuple[int, int, int]  # inode, size in bytes, time of the last change in ns


@dataclass
class Growing:
    """A folder of checkpoints, over many looks.

    Attributes
    ----------
    network : name in the config
    asked : the folder
    quiet : seconds without a change after which a file counts as whole
    now, date : clocks of this process and of the files, in seconds
    seen : signature of each file, and the time since which it is the same
    whole : signature of each file that the last look returned
    """

    network: str
    asked: Checkpoints
    quiet: float
    now: Callable[[], float] = time.monotonic
    date: Callable[[], float] = time.time
    seen: dict[Path, tuple[Signature, float]] = field(default_factory=dict)
    whole: dict[Path, Signature] = field(default_factory=dict)

    def look(self) -> tuple[Sequence[tuple[int, Path]], Sequence[str]]:
        """Return number and path of each file that counts as whole, and the names of those that still change.

        Raises
        ------
        ValueError : the folder is missing, or a number occurs in two names; names the config's key
        """
        whole, changing, now, known = [], [], self.now(), self.seen
        self.seen, self.whole = {}, {}  # a file that is removed is forgotten
        for number, path in checkpoint_files(self.network, self.asked):
            if (signature := _signature(path)) is None:
                continue  # removed since the listing
            before, since = known.get(path, (None, now))
            if before != signature:
                age = self.date() - signature[2] / 1e9
                since = now - self.quiet if before is None and age > max(OLD, self.quiet) else now
            self.seen[path] = (signature, since)
            if now - since >= self.quiet:
                whole.append((number, path))
                self.whole[path] = signature
            else:
                changing.append(path.name)
        return whole, changing

    def changed(self) -> bool:
        """Return whether a file that the last look returned has changed since."""
        return any(_signature(path) != signature for path, signature in self.whole.items())


def _signature(path: Path) -> Signature | None:
    """Return what changes when a file is written; None where it is missing."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
