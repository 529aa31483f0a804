"""Label maps of a probing set: which source has them, what their numbers mean, and how much they cover."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

NOTHING = "-"  # name of label number 0


@dataclass(frozen=True)
class Vocabulary:
    """The labels of a probing set; a label of two categories has a number for each."""

    names: tuple[str, ...]  # (L,) by label number; number 0 is nothing
    categories: tuple[str, ...]
    category_of: NDArray[np.int64]  # (L,) index into `categories`, -1 for number 0


@runtime_checkable
class Annotated(Protocol):
    """A source whose images have label maps."""

    def vocabulary(self) -> Vocabulary:
        """Return the labels."""

    def masks(self, keys: Sequence[str]) -> NDArray[np.int32]:
        """Return (n, P, H, W) int32 label numbers, 0 nothing, one plane per annotation channel.

        A label that holds for a whole image fills a plane.
        """


def annotations_of(source: object) -> Annotated:
    """Return a source of samples as one with label maps; raise ValueError where it has none."""
    if not isinstance(source, Annotated):
        raise ValueError(
            f"expected a probing set with label maps, found {type(source).__name__} without them; use source "
            "mini-broden or broden"
        )
    return source


def vocabulary_of(labels: Sequence[tuple[str, str]], categories: Sequence[str]) -> Vocabulary:
    """Return the vocabulary of labels, given as (name, category), which get the numbers 1, 2, ..."""
    index = [categories.index(category) for _, category in labels]
    names = (NOTHING, *(name for name, _ in labels))
    return Vocabulary(names, tuple(categories), np.array([-1, *index], dtype=np.int64))


def coverage(masks: NDArray[np.int32], n_labels: int) -> NDArray[np.float64]:
    """Return the share of each image's pixels that each label covers.

    Parameters
    ----------
    masks : (n, P, H, W) int32, label numbers 0..n_labels - 1
    n_labels : L, with number 0

    Returns
    -------
    (n, L) float64, 0..1; column 0 is zeros. A pixel with the same label in two planes counts once. Holds
    (n, P, H, W) int64.
    """
    n, n_planes, *size = masks.shape
    pixels = masks.reshape(n, n_planes, -1).copy()
    for plane in range(1, n_planes):
        for before in range(plane):
            pixels[:, plane][pixels[:, plane] == pixels[:, before]] = 0
    offset = pixels.reshape(n, -1) + np.arange(n, dtype=np.int64)[:, None] * n_labels
    counts = np.bincount(offset.ravel(), minlength=n * n_labels).reshape(n, n_labels)
    counts[:, 0] = 0
    return counts / max(1, int(np.prod(size)))
