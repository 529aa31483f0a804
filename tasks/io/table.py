"""Csv files of image paths and labels."""

import csv
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from configs.schema import Csv
from tasks.io.decoding import read_images
from tasks.io.files import File, join, list_files, local_path, look_up, read_bytes
from tasks.io.samples import Row, Sample


@dataclass(frozen=True)
class TableSource:
    """Image files named in tables, keys `<split>/<path as in the table>`."""

    data: Csv
    threads: int = 1

    def rows(self) -> Iterator[Row]:
        """List the samples: splits in alphabetical order, rows as in the table."""
        for split in sorted(self.data.paths):
            listed = self._listed(split)
            for line, path, label in self._cells(split):
                try:
                    file = listed[path] if path in listed else look_up(self._locate(f"{split}/{path}"))
                except FileNotFoundError as error:
                    raise ValueError(f"{line}: file {self._locate(f'{split}/{path}')} does not exist") from error
                yield Row(f"{split}/{path}", self._label(label, line), split, file.size, file.etag)

    def class_names(self) -> dict[int, str]:
        """Return the labels' names where `classes` maps them."""
        return {label: name for name, label in (self.data.classes or {}).items()}

    def read(self, keys: Sequence[str]) -> list[Sample]:
        """Decode the images of `keys`."""
        return read_images(keys, self._locate, self.threads)

    def _cells(self, split: str) -> Iterator[tuple[str, str, str]]:
        """Yield place in the file, path and label of each row of a table."""
        url = self.data.paths[split]
        try:
            text = read_bytes(url).decode("utf-8-sig")
        except FileNotFoundError as error:
            raise ValueError(f"csv: file {url} does not exist") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"csv: file {url} is not UTF-8 text") from error
        reader = csv.DictReader(io.StringIO(text))
        for column in (self.data.path_column, self.data.label_column):
            if column not in (reader.fieldnames or ()):
                found = ", ".join(reader.fieldnames or ()) or "none"
                raise ValueError(f"csv {url}: no column {column!r}; columns: {found}")
        for row in reader:
            place = f"csv {url}, line {reader.line_num}"
            path, label = row[self.data.path_column], row[self.data.label_column]
            if not path or not label:
                raise ValueError(f"{place}: no {'label' if path else 'path'}")
            yield place, path, label

    def _label(self, label: str, place: str) -> int:
        """Return the network output index of a label."""
        if self.data.classes is not None:
            if label not in self.data.classes:
                raise ValueError(f"{place}: label {label!r} is not in `classes`")
            return self.data.classes[label]
        try:
            return int(label)
        except ValueError as error:
            raise ValueError(f"{place}: label {label!r} is not an integer; map names by `classes`") from error

    def _listed(self, split: str) -> dict[str, File]:
        """Return the files below a remote root in one call; local ones are looked up one by one."""
        root = table_root(self.data, split)
        return {} if local_path(root) is not None else {file.path: file for file in list_files(root)}

    def _locate(self, key: str) -> str:
        """Return the file of a sample."""
        split, _, path = key.partition("/")
        return join(table_root(self.data, split), path)


def table_root(data: Csv, split: str) -> str:
    """Return what the paths of a table are relative to: `root`, else the table's own folder."""
    folder, slash, _ = data.paths[split].rpartition("/")
    return data.root or folder or slash or os.getcwd()  # never nothing: a path that begins with ~ would be a home's
