"""Image folders with a folder per class: SPLIT_FOLDER/CLASS/**/NAME.jpg, local or at an fsspec URL."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from unicodedata import normalize

from tasks.io.decoding import EXTENSIONS, decoded_extensions, holds_image, read_images
from tasks.io.files import File, join, list_files, list_folders
from tasks.io.samples import Row, Sample

MAX_NAMED = 3  # largest number of left-out files that a message names, per split


@dataclass(frozen=True)
class FolderSource:
    """Image files by split and class folder, with keys `<split>/<class>/<path>`; other files are only counted.

    Folder names that differ only in their Unicode form (composed or decomposed letters) are one class.
    """

    paths: Mapping[str, str]
    classes: Mapping[str, int] | None = None
    threads: int = 1

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all samples: splits, then class folders, then files, each in alphabetical order."""
        for split, files in self._images.items():
            for file in files:
                label = self.labels[file.path.partition("/")[0]]
                yield Row(f"{split}/{file.path}", label, split, file.size, file.etag)

    def class_names(self) -> dict[int, str]:
        """Return the names of the class folders."""
        if self.classes is not None:
            return {label: folder for folder, label in self.classes.items()}
        folders: dict[int, list[str]] = {}
        for folder, label in self.labels.items():
            folders.setdefault(label, []).append(folder)
        return {label: names[0] if len(names) == 1 else composed(names[0]) for label, names in folders.items()}

    def read(self, keys: Sequence[str]) -> list[Sample]:
        """Read and decode the images of `keys`."""
        return read_images(keys, self._locate, self.threads)

    def left_out(self) -> str:
        """Return in a sentence how many files are left out and the first of each split; "" if none is."""
        parts = []
        for split, files in self._listing.items():
            taken = {file.path for file in self._images[split]}
            paths = [file.path for file in files if file.path not in taken]
            if paths:
                named = ", ".join(paths[:MAX_NAMED]) + (", ..." if len(paths) > MAX_NAMED else "")
                parts.append(f"{len(paths):,} of split {split!r} ({named})")
        return f"left out, not images in class folders: {'; '.join(parts)}" if parts else ""

    @cached_property
    def labels(self) -> dict[str, int]:
        """Return the network output index of each class folder."""
        found = {split: _folders(files, self.paths[split]) for split, files in self._images.items()}
        if self.classes is None:
            return _numbered(set().union(*found.values()))
        labels = {composed(folder): label for folder, label in self.classes.items()}
        for split, folders in found.items():
            unknown = sorted(folder for folder in folders if composed(folder) not in labels)
            if unknown:
                raise ValueError(
                    f"split {split!r} ({self.paths[split]}): expected the class folders of `classes`, found "
                    f"{unknown[0]!r}; add it to `classes` or remove it (folders not in `classes`: {len(unknown)})"
                )
        return {folder: labels[composed(folder)] for folders in found.values() for folder in folders}

    @cached_property
    def _listing(self) -> dict[str, list[File]]:
        """Return all files, by split."""
        return {split: list_files(self.paths[split]) for split in sorted(self.paths)}

    @cached_property
    def _images(self) -> dict[str, list[File]]:
        """Return the image files in class folders, by split."""
        return {
            split: [file for file in files if counts(file, self.paths[split])] for split, files in self._listing.items()
        }

    def _locate(self, key: str) -> str:
        """Return the path or URL of a sample's file."""
        split, _, path = key.partition("/")
        return join(self.paths[split], path)


def counts(file: File, root: str) -> bool:
    """Return whether a file below `root` is an image in a class folder.

    A file with an ending that Pillow knows is an image. A file with another ending, or none, is opened.
    """
    if "/" not in file.path:
        return False
    name = file.path.lower()
    if name.endswith(EXTENSIONS) or PurePosixPath(name).suffix in decoded_extensions():
        return True
    return holds_image(join(root, file.path), file.etag)


def composed(name: str) -> str:
    """Return a class name with composed letters, so that each letter has one form."""
    return normalize("NFC", name)


def _numbered(folders: Iterable[str]) -> dict[str, int]:
    """Return an index by folder, in sorted order; forms of one name have one index."""
    ordered = sorted(folders)
    numbers = {name: label for label, name in enumerate(dict.fromkeys(map(composed, ordered)))}
    return {folder: numbers[composed(folder)] for folder in ordered}


def _folders(files: list[File], url: str) -> set[str]:
    """Return the class folders of a split, with empty folders where they are local."""
    return {file.path.partition("/")[0] for file in files} | set(list_folders(url))
