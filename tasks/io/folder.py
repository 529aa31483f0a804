"""A folder per class: SPLIT_FOLDER/CLASS/**/NAME.jpg, local or at an fsspec URL."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from tasks.io.decoding import EXTENSIONS, read_images
from tasks.io.files import File, join, list_files, list_folders
from tasks.io.samples import Row, Sample


@dataclass(frozen=True)
class FolderSource:
    """Image files by split and class folder, keys `<split>/<class>/<path>`; other files are passed over."""

    paths: Mapping[str, str]
    classes: Mapping[str, int] | None = None
    threads: int = 1

    def rows(self) -> Iterator[Row]:
        """List the samples: splits, then class folders, then files, each in alphabetical order."""
        for split, files in self._listing.items():
            for file in files:
                label = self.labels[file.path.partition("/")[0]]
                yield Row(f"{split}/{file.path}", label, split, file.size, file.etag)

    def class_names(self) -> dict[int, str]:
        """Return the class folders' names."""
        return {label: folder for folder, label in self.labels.items()}

    def read(self, keys: Sequence[str]) -> list[Sample]:
        """Decode the images of `keys`."""
        return read_images(keys, self._locate, self.threads)

    @cached_property
    def labels(self) -> dict[str, int]:
        """Network output index by class folder."""
        found = {split: _folders(files, self.paths[split]) for split, files in self._listing.items()}
        if self.classes is None:
            return {folder: label for label, folder in enumerate(sorted(set().union(*found.values())))}
        for split, folders in found.items():
            unknown = sorted(folders - set(self.classes))
            if unknown:
                raise ValueError(
                    f"class folder {unknown[0]!r} in split {split!r} ({self.paths[split]}) is not in `classes`; "
                    f"add it there or take it out (folders not in `classes`: {len(unknown)})"
                )
        return dict(self.classes)

    @cached_property
    def _listing(self) -> dict[str, list[File]]:
        """Image files in class folders, by split."""
        return {
            split: [file for file in list_files(self.paths[split]) if _counts(file)] for split in sorted(self.paths)
        }

    def _locate(self, key: str) -> str:
        """Return the file of a sample."""
        split, _, path = key.partition("/")
        return join(self.paths[split], path)


def _counts(file: File) -> bool:
    """Tell whether a file is an image inside a class folder."""
    return "/" in file.path and file.path.lower().endswith(EXTENSIONS)


def _folders(files: list[File], url: str) -> set[str]:
    """Return the class folders of a split, empty ones too where they are local."""
    return {file.path.partition("/")[0] for file in files} | set(list_folders(url))
