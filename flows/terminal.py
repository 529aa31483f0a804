"""What commands print: lines, tables and sizes, without characters that move a terminal's cursor."""

import json
import math
import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track
from rich.table import Table

from configs.load import visible

Item = TypeVar("Item")
PIPE_WIDTH = 400  # characters

out = Console(highlight=False, emoji=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)
err = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)


def print_lines(*lines: str) -> None:
    """Print lines without characters that move a terminal's cursor, since another user may have written the store."""
    for line in lines:
        out.print(visible(line), markup=False)


def show_table(table: Table) -> None:
    """Print a table; outside a terminal, one line for each row."""
    out.print(table, width=None if out.is_terminal else PIPE_WIDTH)


def table_of(names: Sequence[object], rows: Iterable[Sequence[object]]) -> Table:
    """Return a table for the terminal, numbers with four digits."""
    table = Table(*map(_cell, names), box=None)
    for row in rows:
        table.add_row(*map(_cell, row))
    return table


def _cell(value: object) -> str:
    """Return the text of a table's cell, without markup and without characters that move a terminal's cursor."""
    if isinstance(value, float):
        return "" if value != value else f"{value:.4g}"
    return visible(str(value)).replace("[", "\\[")


def size_text(count: int) -> str:
    """Return a size for people."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def age_text(seconds: float) -> str:
    """Return a span of time for people; a number that is not one gives "unknown time"."""
    span = seconds
    if span != span:
        return "unknown time"
    for unit, size in (("s", 60), ("min", 60), ("h", 48)):
        if span < size:
            return f"{span:.0f} {unit}"
        span /= size if unit != "h" else 24
    return f"{span:.0f} days"


def print_json(document: object) -> None:
    """Print one JSON document, null for NaN and infinity, with escapes for what would move a terminal's cursor."""
    sys.stdout.write(json.dumps(_known(document), indent=1, allow_nan=False) + "\n")


def _known(value: object) -> object:
    """Return a document without NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _known(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_known(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def tracked(items: Iterable[Item], title: str, count: int) -> Iterable[Item]:
    """Show the progress through some work on the terminal, and nothing elsewhere."""
    return track(items, title, count, console=err, transient=True, disable=not err.is_terminal)


def watched(items: Sequence[Item], title: str) -> Iterable[Item]:
    """Show the progress through some work on the terminal, else a line that it begins."""
    if not err.is_terminal:
        err.print(f"{title}: {len(items)} parts", markup=False)
    return tracked(items, title, len(items))
