"""Cosine similarities: `cos` of the columns, `cos_cubed` of the centred and cubed columns (CLIP-Dissect, Oikarinen)."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from tasks.detectors.checks import check_number
from tasks.detectors.concept_side import ConceptSide, Doubles


class ColumnProducts:
    """Sums over images of weights (N, A) times (P - centre)^power, then scaled per concept: a term of a stream.

    Holds (A, S) float64. Differentiable in the weights.
    """

    def __init__(self, weights: Tensor, centre: Doubles, power: int, scale: Doubles) -> None:
        self._weights, self._power = weights, power
        self._centre, self._scale = (torch.from_numpy(each).to(weights.device) for each in (centre, scale))
        self._total = weights.new_zeros((weights.shape[1], len(centre)))

    def add(self, start: int, scores: Tensor) -> None:
        """Add the rows of P from `start`, (n, S)."""
        columns = scores.double() - self._centre
        power = columns if self._power == 1 else (columns * columns).mul_(columns)
        self._total.addmm_(self._weights[start : start + len(scores)].T, power)

    def merge(self, other: Self) -> None:
        """Add the sums of other rows."""
        self._total = self._total + other._total

    def joint(self) -> Tensor:
        """Return (A, S) float64, a copy."""
        return self._total * self._scale


@dataclass(frozen=True)
class Cos:
    """Parameters of `cos`: it does not have any."""

    lam = 0.0

    def term(self, values: Tensor, side: ConceptSide) -> ColumnProducts:
        """Return the term of neurons (N, A) float64, each with two values or more."""
        size = values.abs().amax(dim=0).detach()  # the squares of any finite values stay finite
        scaled = values / size
        weights = scaled / torch.linalg.vector_norm(scaled, dim=0)
        return ColumnProducts(weights, np.zeros(side.n_words), 1, _inverse(side.norm))


@dataclass(frozen=True)
class CosCubed:
    """Parameters of `cos_cubed`.

    Attributes
    ----------
    min_norm : smallest norm that a cubed column is divided by, or "scale-free": each column is standardised first, so
        that neither the scale of the values nor the number of images matters
    """

    min_norm: float | str = 1e-3
    lam = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.min_norm, str):
            if self.min_norm != "scale-free":
                raise ValueError(f'min_norm: expected a number or "scale-free", found {self.min_norm!r}')
        else:
            check_number("min_norm", self.min_norm, 0)

    def term(self, values: Tensor, side: ConceptSide) -> ColumnProducts:
        """Return the term of neurons (N, A) float64, each with two values or more."""
        floor = 0.0 if isinstance(self.min_norm, str) else float(self.min_norm)
        centred = values - values.mean(dim=0)
        size = centred.abs().amax(dim=0).detach()
        cubed = (centred / size) ** 3
        norm = torch.linalg.vector_norm(cubed, dim=0)  # at least 1
        weights = cubed / torch.maximum(norm, floor / size**3)
        scale = np.where(side.constant > 0, 0.0, _inverse(np.maximum(side.cubed_norm, floor)))
        return ColumnProducts(weights, side.mean, 3, scale)


def _inverse(norm: Doubles) -> Doubles:
    """Return 1 / norm, 0 where the norm is 0."""
    return np.divide(1.0, norm, out=np.zeros_like(norm), where=norm > 0)
