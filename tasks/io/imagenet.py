"""The ImageNet layout of torchvision: ROOT/train/WNID/*.JPEG, ROOT/val/WNID/*.JPEG, optionally ROOT/meta.bin."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tasks.io.files import join, local_path
from tasks.io.folder import FolderSource
from tasks.io.samples import Row, Sample

_N_IMAGENET = 1000


@dataclass(frozen=True)
class ImageNetSource:
    """The two splits as image folders; labels are the indices of the sorted folders."""

    root: str
    threads: int = 1

    @cached_property
    def folders(self) -> FolderSource:
        """Return the image folders as a source."""
        return FolderSource({split: join(self.root, split) for split in ("train", "val")}, None, self.threads)

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all samples."""
        return self.folders.rows()

    def class_names(self) -> dict[int, str]:
        """Return names from meta.bin, from torchvision if all 1,000 classes exist, else those of the folders."""
        return {**self.folders.class_names(), **_names(self.root, self.folders.labels)}

    def read(self, keys: Sequence[str]) -> list[Sample]:
        """Read and decode the images of `keys`."""
        return self.folders.read(keys)

    def left_out(self) -> str:
        """Return in a sentence how many files are left out; "" if none is."""
        return self.folders.left_out()


def _names(root: str, labels: Mapping[str, int]) -> dict[int, str]:
    """Return the known names, by label."""
    from torchvision.models import ResNet18_Weights

    folder = local_path(root)
    if folder is not None and (folder / "meta.bin").is_file():
        words = _meta(folder / "meta.bin")
        return {label: ", ".join(words[wnid]) for wnid, label in labels.items() if wnid in words}
    if len(labels) == _N_IMAGENET:
        return dict(enumerate(ResNet18_Weights.IMAGENET1K_V1.meta["categories"]))
    return {}


def _meta(path: Path) -> dict[str, tuple[str, ...]]:
    """Return each class's words from torchvision's meta.bin, a pair (words by wnid, wnids of val images)."""
    from tasks.io.weights import read_torch

    match read_torch(path):
        case (dict() as words, list()):
            return {str(wnid): tuple(map(str, names)) for wnid, names in words.items()}
    raise ValueError(f"imagenet: expected torchvision's meta.bin at {path}, found another file; delete it")
