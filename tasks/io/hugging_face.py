"""Images and labels in a folder of Hugging Face's `datasets`; only the samples that are read are decoded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.datasets import HuggingFace
from tasks.io.decoding import decode, read_image
from tasks.io.files import local_path, shown
from tasks.io.hugging_face_folder import Table, tables_of
from tasks.io.samples import MAX_LABEL, Row, Sample, array_digest, file_digest


@dataclass(frozen=True)
class HuggingFaceSource:
    """Images and labels of a folder, with keys `<split>/<index in the split>`."""

    data: HuggingFace

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all samples, splits in alphabetical order; images are not decoded."""
        for split, table in self._tables.items():
            number = 0
            for sizes, labels in zip(self._sizes(table), self._labels(split, table), strict=True):
                for size, label in zip(sizes, labels, strict=True):
                    yield Row(f"{split}/{number}", self._index(label, f"{split}/{number}"), split, size, "")
                    number += 1

    def class_names(self) -> dict[int, str]:
        """Return the names of the classes, where the labels have any."""
        if self.data.classes is not None:
            return {index: name for name, index in self.data.classes.items()}
        return dict(enumerate(self._names))

    def read(self, keys: Sequence[str]) -> list[Sample]:
        """Return the images of `keys`."""
        return [self._read(key) for key in keys]

    @cached_property
    def _tables(self) -> Mapping[str, Table]:
        """Return the tables of the splits that are read."""
        found = tables_of(self.data.path)
        wanted = self.data.splits
        for split in wanted or ():
            if split not in found:
                raise ValueError(f"{self._where}: splits: expected some of {', '.join(found)}, found {split!r}")
        return {split: table for split, table in sorted(found.items()) if wanted is None or split in wanted}

    @property
    def _where(self) -> str:
        """Name the folder in errors."""
        return f"hugging-face {shown(self.data.path)}"

    @cached_property
    def _image(self) -> str:
        """Return the name of the column with the images."""
        from datasets import Image

        columns = self._columns
        named = self.data.image_column
        if named is None:
            images = [name for name, feature in columns.items() if isinstance(feature, Image)]
            if len(images) != 1:
                raise ValueError(
                    f"{self._where}: expected one column of images, found {len(images)} among {self._described}; set "
                    "`image_column`"
                )
            return images[0]
        feature = self._column(named, "image_column")
        if not isinstance(feature, Image) and getattr(feature, "dtype", "") != "uint8":
            raise ValueError(
                f"{self._where}: column {named!r}: expected images, or arrays of uint8, found {_kind(feature)}; name "
                "another in `image_column`"
            )
        return named

    @cached_property
    def _label(self) -> str:
        """Return the name of the column with the labels."""
        from datasets import ClassLabel

        columns = self._columns
        named = self.data.label_column
        if named is None:
            classes = [name for name, feature in columns.items() if isinstance(feature, ClassLabel)]
            usual = [name for name in ("label", "labels") if name in columns]
            if len(classes) != 1 and len(usual) != 1:
                raise ValueError(
                    f"{self._where}: expected one column of labels, found {len(classes)} among {self._described}; set "
                    "`label_column`"
                )
            named = classes[0] if len(classes) == 1 else usual[0]
        feature = self._column(named, "label_column")
        kind = getattr(feature, "dtype", "")
        if isinstance(feature, ClassLabel) or re.fullmatch(r"u?int\d+|bool|string|large_string", kind):
            return named
        raise ValueError(
            f"{self._where}: column {named!r}: expected class labels, integers or names, found {_kind(feature)}; name "
            "another in `label_column`"
        )

    @cached_property
    def _columns(self) -> Mapping[str, Any]:  # Any: a feature
        """Return the columns of all splits, after a check that they agree."""
        first: Mapping[str, Any] | None = None
        for split, table in self._tables.items():
            if first is not None and dict(table.features) != dict(first):
                raise ValueError(f"{self._where}: expected the same columns in all splits, found others in {split!r}")
            first = table.features
        if first is None:
            raise ValueError(f"{self._where}: expected splits, found none")
        return first

    @property
    def _described(self) -> str:
        """Name all columns with their kinds."""
        return ", ".join(f"{name} ({_kind(feature)})" for name, feature in self._columns.items())

    def _column(self, name: str, key: str) -> Any:  # Any: a feature
        """Return the feature of a column."""
        if name not in self._columns:
            raise ValueError(f"{self._where}: {key}: expected one of {self._described}, found {name!r}")
        return self._columns[name]

    @cached_property
    def _names(self) -> tuple[str, ...]:
        """Return the names of the labels: those of the column, or all texts in it in sorted order; none of integers."""
        from datasets import ClassLabel

        feature = self._columns[self._label]
        if isinstance(feature, ClassLabel):
            return tuple(feature.names or ())
        if not _is_text(feature):
            return ()
        texts = set[str]()
        for table in self._tables.values():
            for chunk in table.data.column(self._label).chunks:
                texts |= {text for text in chunk.unique().to_pylist() if text is not None}
        return tuple(sorted(texts))

    def _labels(self, split: str, table: Table) -> Iterator[list[Any]]:  # Any: integers or texts
        """Yield the labels of a split, a chunk of the table at a time."""
        for chunk in table.data.column(self._label).chunks:
            yield chunk.to_pylist()

    def _sizes(self, table: Table) -> Iterator[list[int]]:
        """Yield the bytes of each image, a chunk of the table at a time; 0 for files that are not there."""
        import pyarrow as pa
        import pyarrow.compute as pc

        for chunk in table.data.column(self._image).chunks:
            storage = getattr(chunk, "storage", chunk)
            if pa.types.is_struct(storage.type):
                sizes = pc.fill_null(pc.binary_length(storage.field("bytes")), 0).to_pylist()
                paths = storage.field("path").to_pylist() if 0 in sizes else [""] * len(sizes)
                yield [size or _file_size(path) for size, path in zip(sizes, paths, strict=True)]
            else:
                yield [max(1, storage.nbytes // max(1, len(storage)))] * len(storage)

    def _index(self, label: Any, key: str) -> int:  # Any: an integer, a text or None
        """Return the network output index of a label."""
        where = f"{self._where}: sample {key}: column {self._label!r}"
        if label is None or (not isinstance(label, str) and int(label) < 0):
            found = "none" if label is None else str(label)
            raise ValueError(
                f"{where}: expected a label from 0, found {found}; leave the split out by `splits` if it has no labels"
            )
        if self.data.classes is not None:
            name = label if isinstance(label, str) else self._names[label] if self._names else str(label)
            if name not in self.data.classes:
                raise ValueError(f"{where}: expected a label of `classes`, found {name!r}; add it there")
            return self.data.classes[name]
        if isinstance(label, str):
            return self._names.index(label)
        if int(label) > MAX_LABEL:
            raise ValueError(f"{where}: expected a label up to {MAX_LABEL}, the largest int64, found {label}")
        return int(label)

    def _read(self, key: str) -> Sample:
        """Return the image of a key."""
        split, _, number = key.rpartition("/")
        table = self._tables.get(split)
        if table is None or int(number) >= len(table):
            raise ValueError(
                f"sample {key}: expected it in {shown(self.data.path)}, found none; has the folder changed?"
            )
        value, where = table[int(number)][self._image], f"{shown(self.data.path)}, column {self._image!r}"
        if value is None:
            raise ValueError(f"sample {key}: expected an image in {where}, found none; fill it or leave the row out")
        if not isinstance(value, Mapping):
            return _array_sample(value, key, where)
        if value.get("bytes") is not None:
            return Sample(decode(value["bytes"], key, where), file_digest(value["bytes"]))
        path = value.get("path")
        if not path or local_path(path) is None:
            raise ValueError(f"sample {key}: expected bytes or a local file in {where}, found {path or 'neither'}")
        return read_image(key, path)


def _file_size(path: str | None) -> int:
    """Return the bytes of an image that is a file next to the table."""
    local = local_path(path) if path else None
    return local.stat().st_size if local is not None and local.is_file() else 0


def _array_sample(value: object, key: str, where: str) -> Sample:
    """Return the sample of an array of levels."""
    image: NDArray[np.uint8] = np.asarray(value, np.uint8)
    flat = image.ndim not in (2, 3) or min(image.shape) < 1
    if flat or (image.ndim == 3 and image.shape[2] not in range(1, 5)):
        raise ValueError(
            f"sample {key}: expected (H, W) or (H, W, C) with C from 1 to 4 in {where}, found {image.shape}; channels "
            "come last"
        )
    return Sample(image, array_digest(image))


def _kind(feature: object) -> str:
    """Name the kind of a column."""
    name, dtype = type(feature).__name__, getattr(feature, "dtype", "")
    if name == "Value":
        return str(dtype)
    return f"{name} of {dtype}" if name.startswith("Array") else name


def _is_text(feature: object) -> bool:
    """Say whether a column holds texts."""
    return getattr(feature, "dtype", "") in ("string", "large_string")
