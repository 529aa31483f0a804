"""CSV tables of image paths and labels."""

import csv
import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from configs.schema import Csv
from configs.section import check_location
from tasks.io.decoding import read_images
from tasks.io.files import File, join, list_files, local_path, look_up, read_bytes, reason, shown
from tasks.io.folder import composed
from tasks.io.samples import MAX_LABEL, Row, Sample

_INTEGER = re.compile(r"[0-9]+")  # int() also accepts 0_1, +1, blanks and the digits of other scripts


@dataclass(frozen=True)
class TableSource:
    """Image files that tables name, with keys `<split>/<path as in the table>`."""

    data: Csv
    threads: int = 1

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all samples: splits in alphabetical order, rows as in the table."""
        for split in sorted(self.data.paths):
            listed = self._listed(split)
            for line, path, label in self._cells(split):
                file = listed[path] if path in listed else self._file(f"{split}/{path}", line)
                yield Row(f"{split}/{path}", self._label(label, line), split, file.size, file.etag)

    def class_names(self) -> dict[int, str]:
        """Return the labels as names where `classes` maps them."""
        return {label: name for name, label in (self.data.classes or {}).items()}

    def read(self, keys: Sequence[str]) -> list[Sample]:
        """Read and decode the images of `keys`."""
        return read_images(keys, self._locate, self.threads)

    def _cells(self, split: str) -> Iterator[tuple[str, str, str]]:
        """Yield the line, path and label of each row of a table."""
        url = self.data.paths[split]
        rows = _rows(_text(url), url)
        _, names = next(rows, (1, []))
        path_at, label_at = (_column(names, name, url) for name in (self.data.path_column, self.data.label_column))
        for line, cells in rows:
            place = f"csv {url}, line {line}"
            if any(cells[len(names) :]):
                raise ValueError(
                    f"{place}: expected {len(names)} cells, as in the header, found {len(cells)}; quote cells that "
                    "hold a comma"
                )
            path, label = (cells[at] if at < len(cells) else "" for at in (path_at, label_at))
            if not path or not label:
                raise ValueError(f"{place}: expected a {'label' if path else 'path'}, found none")
            yield place, path, label

    def _file(self, key: str, line: str) -> File:
        """Return the file of a sample; errors name its line."""
        url = self._locate(key)
        try:
            return look_up(check_location(url) if "://" in url else url)
        except ValueError as error:  # a URL of an unknown scheme, or with a password in it
            raise ValueError(f"{line}: path: {error}") from error
        except OSError as error:
            raise ValueError(f"{line}: file {shown(url)} {reason(error)}") from error

    def _label(self, label: str, place: str) -> int:
        """Return the network output index of a label."""
        if self.data.classes is not None:
            classes = {composed(name): index for name, index in self.data.classes.items()}
            if composed(label) not in classes:
                raise ValueError(f"{place}: expected a label of `classes`, found {label!r}; add it there")
            return classes[composed(label)]
        if not _INTEGER.fullmatch(label):
            raise ValueError(f"{place}: expected an integer as label, found {label!r}; map names by `classes`")
        digits = label.lstrip("0") or "0"
        if len(digits) > len(str(MAX_LABEL)) or int(digits) > MAX_LABEL:
            raise ValueError(f"{place}: expected a label up to {MAX_LABEL}, the largest int64, found {label[:40]}")
        return int(digits)

    def _listed(self, split: str) -> dict[str, File]:
        """Return the files below a remote root from one call; local files are looked up one by one."""
        root = table_root(self.data, split)
        return {} if local_path(root) is not None else {file.path: file for file in list_files(root)}

    def _locate(self, key: str) -> str:
        """Return the path or URL of a sample's file."""
        split, _, path = key.partition("/")
        return join(table_root(self.data, split), path)


def table_root(data: Csv, split: str) -> str:
    """Return the folder that a table's paths are relative to: `root`, else the table's folder."""
    folder, slash, _ = data.paths[split].rpartition("/")
    return (
        data.root or folder or slash or os.getcwd()
    )  # never empty: otherwise a path that begins with ~ would lie in a home folder


def _text(url: str) -> str:
    """Return the text of a table."""
    try:
        raw = read_bytes(url)
    except OSError as error:
        raise ValueError(f"csv: file {url} {reason(error)}") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + raw.count(b"\n", 0, error.start)
        raise ValueError(f"csv {url}, line {line}: expected UTF-8 text, found other bytes; save it as UTF-8") from error
    for letter, advice in (
        (r"\r(?!\n)", "a carriage return without a line feed; save the table with LF or CRLF line ends"),
        (r"\0", "a NUL character; save the table as plain text"),
    ):
        if (odd := re.search(letter, text)) is not None:
            raise ValueError(f"csv {url}, line {1 + text.count(chr(10), 0, odd.start())}: {advice}")
    return text


def _rows(text: str, url: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the first line and the cells of each row; empty lines are skipped."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"csv {url}, line {line}: expected a row of a table, found an error in it ({error}); close each quote"
        ) from error


def _column(names: Sequence[str], name: str, url: str) -> int:
    """Return the index of a column; raise ValueError unless it exists once."""
    if name not in names:
        raise ValueError(f"csv {url}: expected a column {name!r}, found {', '.join(names) or 'none'}")
    if names.count(name) > 1:
        raise ValueError(f"csv {url}, line 1: expected one column {name!r}, found two; rename one")
    return names.index(name)
