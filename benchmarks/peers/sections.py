"""What a comparison gives: tables, and sentences that say who is better."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

WORTH = 1.1  # smaller ratios are within what the machine's other load changes


@dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes
    ----------
    title : what is compared
    columns : their heads
    rows : cells as text
    notes : sentences below it
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


@dataclass
class Section:
    """One comparison.

    Attributes
    ----------
    peer_better, ours_better : sentences made from the measured figures
    peers : name, version and reason of absence of each peer in the process that measured
    """

    tables: list[Table] = field(default_factory=list)
    peer_better: list[str] = field(default_factory=list)
    ours_better: list[str] = field(default_factory=list)
    peers: list[dict[str, str | None]] = field(default_factory=list)

    def judge(self, case: str, ours: float, theirs: float, peer: str, what: str = "CPU time") -> None:
        """Say who needs less; a difference within 10 % is not said."""
        least, most = sorted((ours, theirs))
        if least <= 0 or most / least < WORTH:
            return
        factor = number(most / least)
        if ours < theirs:
            self.ours_better.append(f"{case}: {peer} takes {factor} times the {what} of layerlore.")
        else:
            self.peer_better.append(f"{case}: layerlore takes {factor} times the {what} of {peer}.")

    def write(self, file: Path) -> None:
        """Write the section as JSON."""
        file.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, file: Path) -> "Section":
        """Read a section from JSON."""
        found = json.loads(file.read_text())
        tables = [Table(**table) for table in found.pop("tables")]
        return cls(tables=tables, **found)


def number(value: float) -> str:
    """Return a figure with three digits that count, two below 1."""
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def time_of(seconds: float) -> str:
    """Return a time with its unit."""
    return f"{number(seconds)} s" if seconds >= 1 else f"{number(1e3 * seconds)} ms"
