"""Folders of Hugging Face's `datasets`: saved data sets, Parquet files and image folders, all on the local disk.

Saved tables are memory-mapped, and Parquet files are converted once into such tables, in the cache of `datasets`. So
only the samples that are read are in memory. Nothing is downloaded, and no code of a data set runs.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from glob import escape
from pathlib import Path
from typing import Any

from tasks.io.files import local_path, shown

SAVED = ("dataset_dict.json", "state.json")  # which `save_to_disk` writes: of several splits, of one
ALL = "all"  # the split of a source without splits
SPLITS = ("train", "val", "valid", "validation", "dev", "test", "eval")  # names by which a single file is a split
_SHARD = re.compile(r"[-_.]?\d+([-_]of[-_]\d+)?([-_][0-9a-f]{8,})?$")  # at the end of the name of one file of several
_lock = threading.Lock()

Table = Any  # a `datasets.Dataset`, which ships no types


def data_files(path: str) -> list[Path]:
    """Return the files of a folder that hold its samples, in order: the tables of a saved data set, or Parquet files.

    Empty for an image folder.

    Raises
    ------
    ValueError : there is no such local folder
    """
    folder = local_path(path)
    if folder is None or not folder.is_dir():
        what = "a URL" if folder is None else "a file" if folder.exists() else "none"
        raise ValueError(f"hugging-face {shown(path)}: expected a local folder, found {what}")
    names = ("*.arrow", "*.json") if is_saved(folder) else ("*.parquet",)
    files = (file for name in names for file in folder.rglob(name) if file.is_file())
    # The package keeps results of `map` and the like in the folder, under names of its own.
    return sorted(file for file in files if not (file.name.startswith("cache-") and file.suffix == ".arrow"))


def label_files(path: str) -> list[Path]:
    """Return the files with the labels of an image folder, sorted."""
    folder = Path(path).expanduser()
    return sorted(file for name in ("metadata.csv", "metadata.jsonl") for file in folder.rglob(name))


def is_saved(folder: Path) -> bool:
    """Say whether `save_to_disk` wrote a folder."""
    return any((folder / name).is_file() for name in SAVED)


def tables_of(path: str) -> Mapping[str, Table]:
    """Return the tables of a folder by split, whose images are not decoded."""
    listed = data_files(path) or sorted(file for file in Path(path).expanduser().rglob("*") if file.is_file())
    files = tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in listed)
    with _lock:  # two threads would convert the same files at once
        return _tables(str(Path(path).expanduser().resolve()), files)


@lru_cache(maxsize=8)
def _tables(path: str, files: tuple[tuple[str, int, int], ...]) -> Mapping[str, Table]:
    """Open a folder; `files` with their times and sizes are a part of the cache key."""
    datasets, folder = _package(), Path(path)
    with _quiet(datasets):
        try:
            if is_saved(folder):
                found = datasets.load_from_disk(path)
                if isinstance(found, datasets.Dataset):
                    found = {str(found.split) if found.split else ALL: found}
            elif data_files(path):
                found = _parquet(datasets, folder)
            else:
                found = _image_folder(datasets, folder)
        except (OSError, ValueError, datasets.exceptions.DatasetsError, RuntimeError) as error:
            text = " ".join(str(error.__cause__ or error).split())[:200]
            raise ValueError(
                f"hugging-face {path}: expected a data set, found one that cannot be read: {text}"
            ) from error
        return {split: _undecoded(datasets, table) for split, table in found.items()}


def _parquet(datasets: Any, folder: Path) -> Mapping[str, Table]:  # Any: a package without types
    """Return the tables of a folder of Parquet files."""
    files = parquet_splits(folder)  # the package does not take all names of splits
    numbered = {f"split{number}": [escape(one) for one in paths] for number, paths in enumerate(files.values())}
    found = datasets.load_dataset("parquet", data_files=numbered)
    return {split: found[number] for split, number in zip(files, numbered, strict=True)}


def _image_folder(datasets: Any, folder: Path) -> Mapping[str, Table]:  # Any: a package without types
    """Return the tables of a folder of image files; one without a folder or file of a split has none."""
    found: Mapping[str, Table] = datasets.load_dataset("imagefolder", data_dir=str(folder))
    names = (part.lower() for file in folder.rglob("*") for part in file.relative_to(folder).parts)
    if list(found) == ["train"] and not any("train" in name for name in names):
        return {ALL: found["train"]}
    return found


def parquet_splits(folder: Path) -> dict[str, list[str]]:
    """Return the Parquet files of a folder by split.

    The split is the name of the file without its number, such as train-00000-of-00002.parquet, or of the folder of a
    file that has only a number. A single name that does not say a split is that of a source without splits.
    """
    found: dict[str, list[str]] = {}
    places: dict[str, set[Path]] = {}
    for file in sorted(folder.rglob("*.parquet")):
        stem = _SHARD.sub("", file.stem)
        parent = file.relative_to(folder).parent.name
        found.setdefault(stem or parent or ALL, []).append(str(file))
        places.setdefault(stem or parent or ALL, set()).add(file.relative_to(folder).parent)
    for split, parents in places.items():
        if len(parents) > 1:
            names = " and ".join(str(one) for one in sorted(parents))
            raise ValueError(f"expected one data set, found split {split!r} in {names}; give the folder of one")
    if len(found) == 1 and next(iter(found)) not in SPLITS:
        return {ALL: next(iter(found.values()))}
    return found


def _undecoded(datasets: Any, table: Table) -> Table:  # Any: a package without types
    """Return a table whose images stay as their files are, without the format that it was saved with."""
    table = table.with_format(None)
    for name, feature in table.features.items():
        if isinstance(feature, datasets.Image):
            table = table.cast_column(name, datasets.Image(decode=False))
    return table.flatten_indices() if table._indices is not None else table


def _package() -> Any:  # Any: a package without types
    """Return the package `datasets`."""
    try:
        import datasets
    except ImportError as error:
        raise ValueError(f"hugging-face: {error}; install the extra `hf`: pip install layerlore[hf]") from error
    return datasets


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:  # Any: a package without types
    """Keep `datasets` from the network and from drawing progress bars in the block."""
    bars, offline = datasets.is_progress_bar_enabled(), datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = offline
        if bars:
            datasets.enable_progress_bars()
