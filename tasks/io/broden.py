"""Probing sets in Broden's folder format (Bau et al. 2017): images with label maps in categories such as object."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tasks.io.annotations import Vocabulary
from tasks.io.broden_tables import TABLES, Entry, Tables, check_numbers, read_tables
from tasks.io.decoding import read_image, read_images
from tasks.io.files import File, join, list_files, local_path, look_up, reason, shown
from tasks.io.samples import Row, Sample


@dataclass(frozen=True)
class BrodenSource:
    """The images of index.csv, with keys `<split>/<path below images/>`, all of label 0."""

    root: str
    threads: int = 1

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all images in the order of index.csv."""
        remote = local_path(self.root) is None
        listed = {file.path: file for file in list_files(join(self.root, "images"))} if remote else {}
        for entry in self._tables.entries:
            file = listed.get(entry.image) or self._file(entry, entry.image)
            for name in (part for cell in entry.cells for part in cell if isinstance(part, str)):
                if name not in listed:
                    self._file(entry, name)
            yield Row(f"{entry.split}/{entry.image}", 0, entry.split, file.size, file.etag)

    def class_names(self) -> dict[int, str]:
        """Return the name of the only class."""
        return {0: "image"}

    def read(self, keys: Sequence[str]) -> list[Sample]:
        """Read and decode the images of `keys`."""
        return read_images(keys, lambda key: self._path(key.partition("/")[2]), self.threads)

    def vocabulary(self) -> Vocabulary:
        """Return the labels in the order of label.csv."""
        return self._tables.vocabulary

    def masks(self, keys: Sequence[str]) -> NDArray[np.int32]:
        """Return the label maps of `keys`, (n, P, H, W) int32: for each category as many planes as a cell has parts."""
        height, width = self._tables.size
        masks = np.zeros((len(keys), sum(self._tables.planes), height, width), dtype=np.int32)
        for image, key in zip(masks, keys, strict=True):
            entry = self._entry(key)
            start = 0
            for category, n_planes in enumerate(self._tables.planes):
                for plane, part in zip(image[start:], entry.cells[category], strict=False):
                    plane[...] = self._plane(entry, category, part)
                start += n_planes
        return masks

    @cached_property
    def _tables(self) -> Tables:
        """Return the tables of the folder."""
        return read_tables(self.root)

    @cached_property
    def _entries(self) -> dict[str, Entry]:
        """Return the rows of index.csv by key."""
        return {f"{entry.split}/{entry.image}": entry for entry in self._tables.entries}

    def _entry(self, key: str) -> Entry:
        """Return the row of index.csv of a key."""
        if key not in self._entries:
            raise ValueError(f"sample {key}: expected a row in index.csv, as when the set was listed, found none")
        return self._entries[key]

    def _plane(self, entry: Entry, category: int, part: str | int) -> NDArray[np.int32] | np.int32:
        """Return the label numbers of a mask file (H, W), or of a number that holds for the whole image."""
        known, name = self._tables.numbers[category], self._tables.vocabulary.categories[category]
        if isinstance(part, int):
            return np.int32(known[part])
        pixels = np.asarray(read_image(f"{entry.split}/{entry.image}", self._path(part)).image)
        place = f"{entry.place}: mask {part}"
        if pixels.shape[:2] != self._tables.size:
            expected, found = (" x ".join(map(str, size)) for size in (self._tables.size, pixels.shape[:2]))
            raise ValueError(f"{place}: expected {expected} pixels, as sh and sw say, found {found}; replace the mask")
        if pixels.ndim != 3 or pixels.shape[2] < 3 or pixels.dtype != np.uint8:
            raise ValueError(f"{place}: expected an RGB image with label = R + 256 G, found {pixels.shape}; save it so")
        numbers = pixels[..., 0].astype(np.int32) + 256 * pixels[..., 1].astype(np.int32)
        check_numbers(np.unique(numbers), known, place, name)
        plane: NDArray[np.int32] = known[numbers]
        return plane

    def _file(self, entry: Entry, name: str) -> File:
        """Return a file of images/; errors name the row of index.csv."""
        try:
            return look_up(self._path(name))
        except OSError as error:
            raise ValueError(f"{entry.place}: file {shown(self._path(name))} {reason(error)}") from error

    def _path(self, name: str) -> str:
        """Return the path or URL of a file below images/."""
        return f"{self.root.rstrip('/')}/images/{name}"


def table_names(root: str) -> list[str]:
    """Return the names of the tables of a folder."""
    return [*TABLES, *(f"c_{category}.csv" for category in read_tables(root).vocabulary.categories)]
