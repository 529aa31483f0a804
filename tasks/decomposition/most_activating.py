"""The images with the largest values of each feature, found in one pass, and where in a map the largest value lies."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]  # first row, first column, past-the-end row, past-the-end column


@dataclass
class MostActivating:
    """The images with the largest values of each feature among those seen; equal values by lower position.

    Attributes
    ----------
    positions : (n_features, count) int64, largest value first; -1 while fewer images were seen
    values : (n_features, count) float32, -inf while fewer images were seen
    """

    positions: NDArray[np.int64]
    values: NDArray[np.float32]

    @classmethod
    def empty(cls, n_features: int, count: int) -> "MostActivating":
        """Return the state before any image; holds (n_features, count) values and positions."""
        positions = np.full((n_features, count), -1, np.int64)
        return cls(positions, np.full((n_features, count), -np.inf, np.float32))

    def update(self, start: int, values: NDArray[np.float32]) -> None:
        """Add the values (n, n_features) of the positions from `start` on; chunks come in rising order."""
        # A stable sort keeps the lower position among equal values, as earlier chunks come first.
        (better,) = np.nonzero((values > self.values[:, -1]).any(axis=0))
        positions = np.broadcast_to(np.arange(start, start + len(values)), (len(better), len(values)))
        all_values = np.concatenate([self.values[better], values[:, better].T], axis=1)
        all_positions = np.concatenate([self.positions[better], positions], axis=1)
        largest = np.argsort(-all_values, axis=1, kind="stable")[:, : self.values.shape[1]]
        self.values[better] = np.take_along_axis(all_values, largest, axis=1)
        self.positions[better] = np.take_along_axis(all_positions, largest, axis=1)


def features_in_use(sets: NDArray[np.int64], block: int) -> NDArray[np.int64]:
    """Return the features in any set, each once: blocks of classes in order, within a block by rank, then by class.

    Parameters
    ----------
    sets : (C, k) features of each class, in order of rank
    block : number of classes
    """
    ordered = [sets[start : start + block].T.ravel() for start in range(0, len(sets), block)]
    return np.array(list(dict.fromkeys(np.concatenate(ordered).tolist())) if ordered else [], np.int64)


def active_box(values: NDArray[np.floating]) -> Box:
    """Return the box around the region of a map (h, w) in which its largest value lies.

    The region holds the positions at least halfway between the lowest and the largest value that are connected by their
    edges. Of equal largest values the first counts. A flat map gives the whole map.
    """
    from scipy.ndimage import label

    height, width = values.shape
    lowest, largest = float(values.min()), float(values.max())
    if lowest == largest:
        return 0, 0, height, width
    regions, _ = label(values >= (lowest + largest) / 2)
    peak = np.unravel_index(int(values.argmax()), values.shape)
    rows, columns = np.nonzero(regions == regions[peak])
    return int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1
