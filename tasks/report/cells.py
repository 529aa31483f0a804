"""Tables of text and the cells they are printed from."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from tasks.report import formats

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
