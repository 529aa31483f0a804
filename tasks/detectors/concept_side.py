"""What the similarities need of the columns of P, the image-concept cosines, from one pass over image chunks.

It depends on the probing set and the words only: all snapshots and layers share it.
"""

from dataclasses import dataclass
from math import comb
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.detectors.checks import Array, check_matrix, column_blocks

Doubles = NDArray[np.float64]

ORDERS = range(2, 7)  # the norm of a cubed column is the root of its sixth central moment
COLUMNS = 2048  # concepts at a time: their temporaries stay small


@dataclass(frozen=True, eq=False)
class ConceptSide:
    """Sums over all images of each concept's column of P.

    Attributes
    ----------
    n_images : number of rows of P
    mean : (S,) float64
    norm : (S,) float64, of the column
    cubed_norm : (S,) float64, of the column minus its mean, cubed
    constant : (S,) float64, 1 where all images have one cosine, else 0
    """

    n_images: int
    mean: Doubles
    norm: Doubles
    cubed_norm: Doubles
    constant: Doubles

    @property
    def n_words(self) -> int:
        """Return the number of concepts."""
        return len(self.mean)

    def block(self, words: slice) -> "ConceptSide":
        """Return the side of a block of words: `cos`, `cos_cubed` and `rank_reorder` may take words in blocks."""
        columns = (self.mean[words], self.norm[words], self.cubed_norm[words], self.constant[words])
        return ConceptSide(self.n_images, *columns)


class ConceptMoments:
    """Central moments of each column of P, up to the sixth, exact in any order of chunks.

    Picklable; holds (8, S) float64. Chunks are combined by Pebay's formula (2008), since raw moments would cancel.
    """

    def __init__(self) -> None:
        self.n_images = 0
        self._values: Tensor | None = None  # rows: mean, the sums of powers 2 to 6, smallest, largest value

    def update(self, scores: Array) -> Self:
        """Add the rows of a chunk.

        Parameters
        ----------
        scores : (n, S) real, n >= 1

        Returns
        -------
        this instance
        """
        width = None if self._values is None else self._values.shape[1]
        matrix = check_matrix("scores", scores, (None, width)).detach()
        parts = [_moments(matrix[:, part].double()) for part in column_blocks(matrix.shape[1], COLUMNS)]
        return self._add(len(matrix), torch.cat(parts, dim=1))

    def merge(self, other: Self) -> Self:
        """Add the rows of another instance, which is not changed.

        Returns
        -------
        this instance
        """
        if other._values is None:
            return self
        if self._values is not None and self._values.shape != other._values.shape:
            found = other._values.shape[1]
            raise ValueError(f"merge: expected {self._values.shape[1]} concepts, found {found}")
        return self._add(other.n_images, other._values)

    def side(self) -> ConceptSide:
        """Return the concept side of the rows so far, at least one."""
        if self._values is None:
            raise ValueError("concept side: expected at least one image, found none")
        mean, second, *_, sixth, low, high = self._values.cpu().numpy()
        norm = np.sqrt(second + self.n_images * mean**2)
        constant = (low == high).astype(np.float64)
        # rounding leaves a constant column a tiny spread, which "scale-free" would divide by
        return ConceptSide(self.n_images, mean.copy(), norm, np.where(low == high, 0.0, np.sqrt(sixth)), constant)

    def state(self) -> Doubles:
        """Return what the instance holds, (8, S) float64; `of` restores it."""
        if self._values is None:
            raise ValueError("concept side: expected at least one image, found none")
        found: Doubles = self._values.cpu().numpy()
        return found

    @classmethod
    def of(cls, n_images: int, state: Doubles) -> Self:
        """Return the instance that `n_images` rows gave."""
        return cls()._add(n_images, torch.from_numpy(np.array(state, dtype=np.float64)))

    def _add(self, n: int, values: Tensor) -> Self:
        """Combine with the values of n further rows."""
        if self._values is None:
            self.n_images, self._values = n, values.clone()
        else:
            self._values = _combined(self.n_images, self._values, n, values)
            self.n_images += n
        return self


def _moments(block: Tensor) -> Tensor:
    """Return the eight rows of values of a block of columns."""
    low, high = block.amin(dim=0), block.amax(dim=0)
    mean = block.mean(dim=0)
    centred = block - mean
    power, sums = centred.clone(), []
    for _ in ORDERS:
        power *= centred
        sums.append(power.sum(dim=0))
    return torch.stack([mean, *sums, low, high])


def _combined(n: int, first: Tensor, m: int, second: Tensor) -> Tensor:
    """Return the values of n + m rows from the values of n and of m rows."""
    result = torch.empty_like(first)
    total, delta = n + m, second[0] - first[0]
    result[0] = first[0] + delta * (m / total)
    for p in ORDERS:
        sums = first[p - 1] + second[p - 1]
        for k in range(1, p - 1):
            terms = (-m / total) ** k * first[p - k - 1] + (n / total) ** k * second[p - k - 1]
            sums = sums + comb(p, k) * delta**k * terms
        weight = (n * m / total) * ((n / total) ** (p - 1) - (-m / total) ** (p - 1))
        result[p - 1] = sums + weight * delta**p
    result[-2], result[-1] = torch.minimum(first[-2], second[-2]), torch.maximum(first[-1], second[-1])
    return result
