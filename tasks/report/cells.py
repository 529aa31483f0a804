"""Tables of text and the cells they are printed from."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import groupby

import pandas as pd

from tasks.report import formats

MOST_COLUMNS = 12  # of a table, side by side
MOST_LEADING = 3  # of these, the columns of words that are repeated in each part
MOST_NAMING = 6  # or the columns, up to this number, in which every row differs

Cell = Callable[[pd.Series], str]


@dataclass(frozen=True)
class Column:
    """A column: its head, whether it is numeric (set right), how strongly each cell is shaded (0..1), if it wraps."""

    title: str
    numeric: bool = True
    shades: tuple[float, ...] = ()
    wraps: bool = False


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes
    ----------
    caption : what it shows, with units
    columns : heads; the first column names the row
    rows : cells of text
    groups : a head above the heads: title and number of columns
    note : what is left out, if anything
    csv : file with the full numbers, relative to the page
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    groups: tuple[tuple[str, int], ...] = ()
    note: str = ""
    csv: str = ""

    @property
    def labels(self) -> tuple[str, ...]:
        """The head of each column with that of its group, for screens on which a row is a list."""
        groups = [title for title, span in self.groups for _ in range(span)] or [""] * len(self.columns)
        return tuple(
            f"{group}, {column.title}" if group else column.title
            for group, column in zip(groups, self.columns, strict=True)
        )

    @property
    def parts(self) -> "tuple[Table, ...]":
        """The table in parts that a page has room for: all rows, the first columns, and some of the others."""
        lead = self._leading()
        chunks = _chunks([span for _, span in self.groups] or [1] * len(self.columns), lead)
        return (self,) if len(chunks) < 2 else tuple(self._part(lead, *chunk) for chunk in chunks)

    def _leading(self) -> int:
        """Return the number of first columns that each part repeats: words, and others until every row differs."""
        words = next((i for i, column in enumerate(self.columns) if column.numeric), len(self.columns))
        lead = min(max(1, words), MOST_LEADING)
        for more in range(lead, MOST_NAMING + 1):
            if len({row[:more] for row in self.rows}) == len(self.rows):
                return more
        return lead

    def _part(self, lead: int, start: int, stop: int) -> "Table":
        """Return the first columns with those from `start` to `stop`."""
        groups = [title for title, span in self.groups for _ in range(span)]
        kept = [*range(lead), *range(start, stop)]
        return replace(
            self,
            columns=tuple(self.columns[i] for i in kept),
            rows=tuple(tuple(row[i] for i in kept) for row in self.rows),
            groups=tuple((title, len(list(run))) for title, run in groupby(groups[i] for i in kept)) if groups else (),
            note=self.note if start == lead else "Continued.",
            csv=self.csv if stop == len(self.columns) else "",
        )


def _chunks(spans: list[int], lead: int) -> list[tuple[int, int]]:
    """Cut the columns after the leading ones into runs that fit next to these; groups stay whole if small."""
    ends, total = [], 0
    for span in spans:
        total += span
        ends.append(total)
    if total <= MOST_COLUMNS:
        return [(lead, total)]
    room, rest = MOST_COLUMNS - lead, total - lead
    if len(spans) == total:  # without groups: runs of about one length
        room = -(-rest // -(-rest // room))
    chunks, start = [], lead
    while start < total:
        fitting = [end for end in ends if start < end <= start + room]
        stop = max(fitting, default=min(total, start + room))
        chunks.append((start, stop))
        start = stop
    return chunks


def print_table(frame: pd.DataFrame, caption: str, cells: dict[str, Cell], *, words: int = 1, csv: str = "") -> Table:
    """Print each row by its cells; the first `words` columns are set left."""
    columns = tuple(Column(title, numeric=i >= words) for i, title in enumerate(cells))
    rows = tuple(tuple(cell(row) for cell in cells.values()) for _, row in frame.iterrows())
    return Table(caption, columns, rows, csv=csv)


def text_cell(column: str) -> Cell:
    """Return a cell printed as it is."""
    return lambda row: formats.text(row.get(column))


def number_cell(column: str, form: Callable[[float], str]) -> Cell:
    """Return a cell printed by its unit; an absent column counts as missing."""
    return lambda row: form(float_in(row, column))


def spread_cell(mean: str, std: str, form: Callable[[float, float], str]) -> Cell:
    """Return a cell with mean and spread."""
    return lambda row: form(float_in(row, mean), float_in(row, std))


def float_in(row: pd.Series, column: str) -> float:
    """Return the number in a column, NaN where there is none."""
    value = row.get(column)
    return float("nan") if value is None else float(value)
