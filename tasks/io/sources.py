"""Where samples come from: one adapter per `source` value of the config."""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

from configs.imports import import_object
from configs.schema import AnyDataSet
from tasks.io.digits import DigitsSource
from tasks.io.folder import FolderSource
from tasks.io.imagenet import ImageNetSource
from tasks.io.npz import NpzSource
from tasks.io.samples import Row, Sample
from tasks.io.table import TableSource


class Source(Protocol):
    """Samples in one fixed order, with random access."""

    def rows(self) -> Iterable[Row]:
        """List all samples in the fixed order; nothing is decoded."""

    def class_names(self) -> dict[int, str]:
        """Return names by label, as far as the source has them."""

    def read(self, keys: Sequence[str]) -> list[Sample]:
        """Decode the samples of `keys`, in that order; errors name the sample."""


@runtime_checkable
class Selective(Protocol):
    """A source that takes some of the files that it finds."""

    def left_out(self) -> str:
        """Return how many files are left out, in a sentence; nothing where none is."""


# Any: each function takes the data set of its own `source` value
SOURCES: dict[str, Callable[[Any, int], Source]] = {
    "sklearn-digits": lambda data, threads: DigitsSource(),
    "npz": lambda data, threads: NpzSource(data),
    "image-folder": lambda data, threads: FolderSource(data.paths, data.classes, threads),
    "csv": lambda data, threads: TableSource(data, threads),
    "imagenet": lambda data, threads: ImageNetSource(data.root, threads),
    "import": lambda data, threads: _imported(data.object, data.arguments),
}


def open_source(data: AnyDataSet, *, threads: int | None = None) -> Source:
    """Open a data set.

    Parameters
    ----------
    data : the config's section
    threads : threads that decode images in one `read`; default: one per core, at most 8

    Returns
    -------
    Source
    """
    return SOURCES[data.source](data, threads or min(8, os.cpu_count() or 1))


def left_out(source: Source) -> str:
    """Return which files a source leaves out, in a sentence; nothing where none is."""
    return source.left_out() if isinstance(source, Selective) else ""


def _imported(path: str, arguments: dict[str, Any]) -> Source:  # Any: the user's own
    """Return the source that a user's function makes."""
    try:
        source: Source = import_object(path)(**arguments)
    except TypeError as error:
        raise ValueError(f"data source {path}: {error}") from error
    missing = [name for name in ("rows", "class_names", "read") if not callable(getattr(source, name, None))]
    if missing:
        raise ValueError(f"data source {path} returned {type(source).__name__} without {', '.join(missing)}()")
    return source
