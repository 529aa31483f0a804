"""Sources of samples: one adapter per `source` value of the config."""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

from configs.imports import import_object
from configs.schema import AnyDataSet
from tasks.io.broden import BrodenSource
from tasks.io.digits import DigitsSource
from tasks.io.folder import FolderSource
from tasks.io.graphs import open_graph_file, open_torch_geometric
from tasks.io.hugging_face import HuggingFaceSource
from tasks.io.imagenet import ImageNetSource
from tasks.io.mini_broden import MiniBrodenSource
from tasks.io.npz import NpzSource
from tasks.io.samples import Row, Sample
from tasks.io.sequences import open_sequence_file, open_texts
from tasks.io.table import TableSource


class Source(Protocol):
    """Samples in one fixed order, with random access."""

    def rows(self) -> Iterable[Row]:
        """Yield the rows of all samples in the fixed order; images are not decoded."""

    def class_names(self) -> dict[int, str]:
        """Return the known class names, by label."""

    def read(self, keys: Sequence[str]) -> list[Sample]:
        """Return the decoded samples of `keys`, in that order; errors name the sample."""


@runtime_checkable
class Selective(Protocol):
    """A source that leaves out some of its files."""

    def left_out(self) -> str:
        """Return in a sentence how many files are left out; "" if none is."""


# Any: each function takes the data set of its own `source` value
SOURCES: dict[str, Callable[[Any, int], Source]] = {
    "sklearn-digits": lambda data, threads: DigitsSource(),
    "npz": lambda data, threads: NpzSource(data),
    "image-folder": lambda data, threads: FolderSource(data.paths, data.classes, threads),
    "csv": lambda data, threads: TableSource(data, threads),
    "hugging-face": lambda data, threads: HuggingFaceSource(data),
    "imagenet": lambda data, threads: ImageNetSource(data.root, threads),
    "broden": lambda data, threads: BrodenSource(data.root, threads),
    "mini-broden": lambda data, threads: MiniBrodenSource(data.count, data.size, data.seed),
    "graph-npz": lambda data, threads: open_graph_file(data),
    "torch-geometric": lambda data, threads: open_torch_geometric(data),
    "sequence-npz": lambda data, threads: open_sequence_file(data),
    "texts": lambda data, threads: open_texts(data),
    "import": lambda data, threads: _imported(data.object, data.arguments),
}


def open_source(data: AnyDataSet, *, threads: int | None = None) -> Source:
    """Open a data set as a source of samples.

    Parameters
    ----------
    data : the config's section
    threads : number of threads that decode images in one `read`; default: one per core, at most 8

    Returns
    -------
    Source
    """
    return SOURCES[data.source](data, threads or min(8, os.cpu_count() or 1))


def left_out(source: Source) -> str:
    """Return in a sentence which files a source leaves out; "" if none is."""
    return source.left_out() if isinstance(source, Selective) else ""


def _imported(path: str, arguments: dict[str, Any]) -> Source:  # Any: the user's own
    """Return the source that a user's function returns."""
    try:
        source: Source = import_object(path)(**arguments)
    except TypeError as error:
        raise ValueError(f"data source {path}: {error}") from error
    missing = [name for name in ("rows", "class_names", "read") if not callable(getattr(source, name, None))]
    if missing:
        raise ValueError(
            f"data source {path}: expected the methods {', '.join(missing)}, found {type(source).__name__} without them"
        )
    return source
