"""The tables of a probing set in Broden's folder format: index.csv, category.csv, label.csv and c_CATEGORY.csv."""

import csv
import io
import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tasks.io.annotations import Vocabulary, vocabulary_of
from tasks.io.files import join, look_up, read_bytes, reason, shown

N_NUMBERS = 100_000  # label numbers have up to five digits; those of a mask are R + 256 G
TABLES = ("index.csv", "category.csv", "label.csv")
_NUMBER = re.compile(r"[0-9]{1,5}")
_CATEGORIES = re.compile(r"([^();]+?)(?:\([^()]*\))?(?:;|$)")  # object(78);material(50)


@dataclass(frozen=True)
class Entry:
    """One row of index.csv."""

    image: str  # path below images/
    split: str
    place: str  # file and row, for messages
    cells: tuple[tuple[str | int, ...], ...]  # by category: names of mask files, and numbers of the whole image


@dataclass(frozen=True)
class Tables:
    """The checked tables of a folder."""

    entries: tuple[Entry, ...]
    vocabulary: Vocabulary
    numbers: NDArray[np.int32]  # (categories, N_NUMBERS): vocabulary number by number in the files, -1 unknown
    planes: tuple[int, ...]  # largest number of entries of a cell, by category
    size: tuple[int, int]  # height and width of all masks


def read_tables(root: str) -> Tables:
    """Read the tables below a folder or URL; a process reads unchanged tables once."""
    return _read(root, tuple(_etag(join(root, name)) for name in TABLES))


def _etag(url: str) -> str:
    """Return the etag of a file; "" where it cannot be looked up."""
    try:
        return look_up(url).etag
    except OSError:
        return ""


@lru_cache(maxsize=4)
def _read(root: str, etags: tuple[str, ...]) -> Tables:
    """Read the tables; `etags` are a part of the cache key."""
    categories = [row["name"] for _, row in _table(root, "category.csv", ("name",))]
    labels, numbers = _labels(root, categories)
    entries, size = _entries(root, categories)
    for entry in entries:
        for category, cell in enumerate(entry.cells):
            for number in (part for part in cell if isinstance(part, int) and part):
                check_numbers(np.array([number]), numbers[category], entry.place, categories[category])
    planes = tuple(max(len(entry.cells[i]) for entry in entries) for i in range(len(categories)))
    return Tables(tuple(entries), vocabulary_of(labels, categories), numbers, planes, size)


def check_numbers(found: NDArray[np.integer], known: NDArray[np.int32], place: str, category: str) -> None:
    """Raise ValueError unless every label number is one of the category."""
    unknown = found[known[found] < 0]
    if unknown.size:
        raise ValueError(
            f"{place}: {category}: expected label numbers of this category in label.csv, found {unknown.min()}; add "
            "the label there, or correct the number"
        )


def _labels(root: str, categories: list[str]) -> tuple[list[tuple[str, str]], NDArray[np.int32]]:
    """Return (name, category) of each label in the order of label.csv, and their numbers by number in the files."""
    names: dict[int, str] = {}
    pairs: list[tuple[int, str]] = []
    for place, row in _table(root, "label.csv", ("number", "name", "category")):
        number = _number(row["number"], place)
        if number in names or number == 0:
            raise ValueError(f"{place}: expected a new label number from 1, found {number} again or 0; change it")
        names[number] = row["name"]
        for category in _CATEGORIES.findall(row["category"]):
            if category not in categories:
                raise ValueError(f"{place}: expected a category of category.csv, found {category!r}; add it there")
            pairs.append((number, category))
    for category in categories:
        for place, row in _table(root, f"c_{category}.csv", ("number",)):
            if (number := _number(row["number"], place)) not in names:
                raise ValueError(f"{place}: expected a label number of label.csv, found {number}; add it there")
            pairs.append((number, category))
    pairs = list(dict.fromkeys(pairs))
    numbers = np.full((len(categories), N_NUMBERS), -1, dtype=np.int32)
    numbers[:, 0] = 0
    for i, (number, category) in enumerate(pairs, 1):
        numbers[categories.index(category), number] = i
    return [(names[number], category) for number, category in pairs], numbers


def _entries(root: str, categories: list[str]) -> tuple[list[Entry], tuple[int, int]]:
    """Return the rows of index.csv and the size of all masks."""
    entries: list[Entry] = []
    sizes: dict[tuple[int, int], str] = {}
    for place, row in _table(root, "index.csv", ("image", "split", "sh", "sw", *categories)):
        if not row["image"] or not row["split"] or "/" in row["split"]:
            raise ValueError(f"{place}: expected an image and a split, found {row['image']!r} and {row['split']!r}")
        cells = tuple(tuple(_parts(row[category])) for category in categories)
        entries.append(Entry(row["image"], row["split"], place, cells))
        height, width = (_number(row[name], place) for name in ("sh", "sw"))
        sizes.setdefault((height, width), place)
    if not entries:
        raise ValueError(f"{join(root, 'index.csv')}: expected images, found none; add rows")
    (size, _), *others = sizes.items()
    if others or not min(size):
        found, place = others[0] if others else (size, entries[0].place)
        raise ValueError(f"{place}: expected masks (sh, sw) of one size, {size}, found {found}; resize the masks")
    return entries, size


def _parts(cell: str) -> list[str | int]:
    """Return the names and numbers of a cell of index.csv."""
    parts = [part.strip() for part in cell.split(";")]
    return [int(part) if _NUMBER.fullmatch(part) else part for part in parts if part]


def _number(text: str, place: str) -> int:
    """Return a number of a table."""
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{place}: expected a number of at most five digits, found {text!r}; correct it")
    return int(text)


def _table(root: str, name: str, columns: tuple[str, ...]) -> list[tuple[str, dict[str, str]]]:
    """Return (file and row, cells by column) of each row of a table."""
    url = join(root, name)
    try:
        text = read_bytes(url).decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"file {shown(url)} {reason(error)}; a folder of source `broden` needs it") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{shown(url)}: expected UTF-8 text, found other bytes; save it as UTF-8") from error
    reader = csv.DictReader(io.StringIO(text, newline=""), restval="")
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(f"{shown(url)}: expected a column {missing[0]!r}, found {', '.join(reader.fieldnames or ())}")
    try:
        return [
            (f"{shown(url)}, row {i}", {column: row[column] for column in columns}) for i, row in enumerate(reader, 1)
        ]
    except csv.Error as error:
        raise ValueError(f"{shown(url)}: expected a table, found an error in it ({error}); correct it") from error
