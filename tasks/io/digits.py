"""The handwritten digits of scikit-learn, which are a part of its package."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.io.samples import Row, Sample, array_digest

FILE = "datasets/data/digits.csv.gz"  # of scikit-learn: 64 levels and the label of each image


@dataclass(frozen=True)
class DigitsSource:
    """1,797 images (8, 8) uint8, all in split `all`, keys `all/<number in scikit-learn's order>`."""

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all samples."""
        images, labels = _digits()
        return (Row(f"all/{i}", int(label), "all", images[0].nbytes, "") for i, label in enumerate(labels))

    def class_names(self) -> dict[int, str]:
        """Return the digits as class names."""
        return {label: str(label) for label in range(10)}

    def read(self, keys: Sequence[str]) -> list[Sample]:
        """Return the images of `keys`."""
        images, _ = _digits()
        return [Sample(image, array_digest(image)) for image in (images[int(key.removeprefix("all/"))] for key in keys)]


@lru_cache(maxsize=1)
def _digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images (1797, 8, 8) uint8, levels 0..16 scaled to 0..255 and rounded half to even, and labels."""
    package = find_spec("sklearn")  # as sklearn.datasets reads it, which takes a second to import
    assert package is not None, "layerlore needs scikit-learn"
    assert package.origin is not None
    table = np.loadtxt(Path(package.origin).parent / FILE, delimiter=",")
    images, labels = table[:, :-1].reshape(-1, 8, 8), table[:, -1]
    return np.rint(images * (255 / 16)).astype(np.uint8), labels.astype(np.int64)
