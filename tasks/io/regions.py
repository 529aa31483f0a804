"""Regions of images with captions, from which a captioner learns: a folder or a zip archive with a table."""

import csv
import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tasks.io.decoding import decode
from tasks.io.files import local_path, reason, shown

# Errors of a zip archive that is damaged, encrypted or of another method.
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)  # NotImplementedError is a RuntimeError
TABLE = "regions.csv"
COLUMNS = ("image", "mask", "text")


class Region(NamedTuple):
    """A region of an image with its caption.

    Attributes
    ----------
    image : name of the image
    mask : name of the mask
    caption : text
    origin : regions of one origin, such as crops of one photograph, are never divided between training and test
    """

    image: str
    mask: str
    caption: str
    origin: str


class RegionSource(Protocol):
    """Regions with captions."""

    def regions(self) -> Sequence[Region]:
        """Return all regions."""

    def image(self, name: str) -> NDArray[np.uint8]:
        """Return an image (H, W, 3)."""

    def mask(self, region: Region) -> NDArray[np.bool_]:
        """Return the mask (H, W) of a region, of the image's size."""


@dataclass(frozen=True)
class RegionFiles:
    """The regions that regions.csv of a local folder, or of a zip archive, lists.

    Parameters
    ----------
    path : folder or .zip with regions.csv; its columns `image`, `mask` and `text` name files and captions
    origin : column with the origin of a region; "" takes the image
    """

    path: str
    origin: str = ""

    def regions(self) -> Sequence[Region]:
        """Return all regions in the order of the table.

        Raises
        ------
        ValueError : a missing table or column, a row without a caption's words; one line
        """
        return self._regions

    def image(self, name: str) -> NDArray[np.uint8]:
        """Return an image (H, W, 3); raise ValueError for a file that is missing or is not an image."""
        return self._picture(name)

    def mask(self, region: Region) -> NDArray[np.bool_]:
        """Return the mask (H, W) of a region: what is not black; raise ValueError for an empty one."""
        mask = np.asarray(self._picture(region.mask).any(axis=2), np.bool_)
        if not mask.any():
            raise ValueError(f"{self._at(region)}: expected a region, found mask {region.mask} empty; remove the row")
        return mask

    def check(self) -> None:
        """Raise ValueError unless every image and mask can be read, and they have the same size; one line."""
        sizes = {name: self.image(name).shape[:2] for name in dict.fromkeys(row.image for row in self._regions)}
        for row in self._regions:
            if (size := self.mask(row).shape) != sizes[row.image]:
                raise ValueError(
                    f"{self._at(row)}: expected mask {row.mask} of the image's size {sizes[row.image]}, found {size}; "
                    "draw it on the whole image"
                )

    @cached_property
    def _root(self) -> Path | zipfile.Path:
        """Return the folder or the archive."""
        local = local_path(self.path)
        if local is None:
            raise ValueError(f"regions {self.path}: expected a local folder or .zip, found a URL; copy the files here")
        if local.suffix != ".zip":
            return local
        try:
            return zipfile.Path(local)
        except OSError as error:
            raise ValueError(f"regions {shown(self.path)} {reason(error)}") from error
        except zipfile.BadZipFile as error:
            raise ValueError(f"regions {shown(self.path)}: expected a zip archive, found another file") from error

    @cached_property
    def _regions(self) -> tuple[Region, ...]:
        """Return the rows of the table."""
        reader = csv.DictReader(io.StringIO(_text(self._bytes(TABLE), f"{shown(self.path)}/{TABLE}"), newline=""))
        names, wanted = reader.fieldnames or (), (*COLUMNS, *([self.origin] if self.origin else []))
        if missing := [name for name in wanted if name not in names]:
            raise ValueError(
                f"regions {shown(self.path)}/{TABLE}: expected the columns {', '.join(wanted)}, found none called "
                f"{missing[0]!r}"
            )
        found = []
        for number, row in enumerate(self._rows(reader), 2):
            cells = {name: (row[name] or "").strip() for name in wanted}
            place = f"regions {shown(self.path)}/{TABLE}, row {number}"
            for name in ("image", "mask"):
                if not cells[name]:
                    raise ValueError(f"{place}: expected a file as {name}, found none")
            if not any(letter.isalnum() for letter in cells["text"]):
                raise ValueError(f"{place}: expected words as text, found {cells['text']!r}; write a caption")
            origin = cells[self.origin] if self.origin else cells["image"]
            found.append(Region(cells["image"], cells["mask"], cells["text"], origin))
        if not found:
            raise ValueError(f"regions {shown(self.path)}/{TABLE}: expected rows, found none; add regions")
        return tuple(found)

    def _rows(self, reader: "csv.DictReader[str]") -> Iterator[dict[str, str]]:
        """Yield the rows of the table."""
        try:
            yield from reader
        except csv.Error as error:
            raise ValueError(f"regions {shown(self.path)}/{TABLE}: expected a table of CSV: {error}") from error

    def _picture(self, name: str) -> NDArray[np.uint8]:
        """Return a file as an image (H, W, 3)."""
        from tasks.io.images import rgb_array  # which imports torch

        return rgb_array(decode(self._bytes(name), name, f"{shown(self.path)}/{name}"), name)

    def _at(self, region: Region) -> str:
        """Return the place of a region for an error."""
        return f"regions {shown(self.path)}/{TABLE}, row {self._regions.index(region) + 2}"

    def _bytes(self, name: str) -> bytes:
        """Return a file's bytes."""
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"regions {shown(self.path)}: expected a path below it, found {name!r}")
        try:
            found: bytes = (self._root / name).read_bytes()
        except KeyError:
            raise ValueError(f"regions {shown(self.path)}: file {name} does not exist") from None
        except OSError as error:
            raise ValueError(f"regions {shown(self.path)}: file {name} {reason(error)}") from error
        except DAMAGED as error:
            raise ValueError(f"regions {shown(self.path)}: file {name} is damaged or encrypted ({error})") from error
        return found


def _text(raw: bytes, name: str) -> str:
    """Return the text of a table."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"regions {name}: expected UTF-8 text, found other bytes; save it as UTF-8") from error
