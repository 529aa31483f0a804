"""Pointwise mutual information of a neuron's top images and a concept: `wpmi` and `soft_wpmi` (CLIP-Dissect)."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from tasks.detectors.checks import check_count, check_number
from tasks.detectors.concept_side import ConceptSide
from tasks.detectors.top_images import top_images

MIN_PROBABILITY = 1e-7  # the authors' guard of the logarithm


class TopLogs:
    """Sums over each neuron's top images of log(1 + p_r (Q - 1) + 1e-7), Q the softmax of a P over concepts.

    A term of a stream. Holds (A, S) float64. At p = 1 the summand is log(Q + 1e-7).
    """

    def __init__(self, images: Tensor, shares: Tensor, a: float, n_words: int) -> None:
        self._images, self._shares, self._a = images, shares, a  # (top_k, A) int64, (top_k,) float64
        self._total = shares.new_zeros((images.shape[1], n_words))

    def add(self, start: int, scores: Tensor) -> None:
        """Add the rows of P from `start`, (n, S)."""
        offsets = self._images.T - start
        neurons, ranks = torch.nonzero((offsets >= 0) & (offsets < len(scores)), as_tuple=True)  # by neuron, then rank
        if not len(neurons):
            return
        chances = torch.softmax(self._a * scores.double(), dim=1)
        rows, shares = offsets[neurons, ranks], self._shares[ranks, None]
        hit, counts = torch.unique_consecutive(neurons, return_counts=True)
        ends = counts.cumsum(dim=0)
        for neuron, start_row, end_row in zip(hit.tolist(), (ends - counts).tolist(), ends.tolist(), strict=True):
            part = slice(start_row, end_row)
            # (1 - p) + p Q keeps digits that 1 + p (Q - 1) would lose for small Q
            factors = chances[rows[part]].mul_(shares[part]).add_(1 - shares[part] + MIN_PROBABILITY)
            self._total[neuron] += factors.log_().sum(dim=0)

    def merge(self, other: Self) -> None:
        """Add the sums of other rows."""
        self._total += other._total

    def joint(self) -> Tensor:
        """Return (A, S) float64, a copy."""
        return self._total.clone()


@dataclass(frozen=True)
class Wpmi:
    """Parameters of `wpmi`.

    Attributes
    ----------
    top_k : number of images of each neuron, at least 1
    a : factor of the cosines before the softmax over concepts, above 0
    lam : weight of the marginal over neurons, at least 0; 0 gives the joint term
    """

    top_k: int = 28
    a: float = 2.0
    lam: float = 0.6

    def __post_init__(self) -> None:
        _check(self.top_k, self.a, self.lam)

    def term(self, values: Tensor, side: ConceptSide) -> TopLogs:
        """Return the term of neurons (N, A) float64."""
        shares = values.new_ones(_within(self.top_k, len(values))).detach()
        return TopLogs(top_images(values, self.top_k), shares, float(self.a), side.n_words)


@dataclass(frozen=True)
class SoftWpmi:
    """Parameters of `soft_wpmi`.

    Attributes
    ----------
    top_k, a, lam : as in `Wpmi`
    p_start, p_end : probability that an image belongs to the neuron's set: it falls linearly from `p_start` at the
        first image towards `p_end`; 0 to 1
    """

    top_k: int = 100
    a: float = 10.0
    lam: float = 1.0
    p_start: float = 0.998
    p_end: float = 0.97

    def __post_init__(self) -> None:
        _check(self.top_k, self.a, self.lam)
        check_number("p_start", self.p_start, 0, 1)
        check_number("p_end", self.p_end, 0, 1)

    def term(self, values: Tensor, side: ConceptSide) -> TopLogs:
        """Return the term of neurons (N, A) float64."""
        ranks = torch.arange(_within(self.top_k, len(values)), dtype=torch.float64, device=values.device)
        shares = self.p_start - ranks / self.top_k * (self.p_start - self.p_end)
        return TopLogs(top_images(values, self.top_k), shares, float(self.a), side.n_words)


def _check(top_k: int, a: float, lam: float) -> None:
    """Check the parameters that both have."""
    check_count("top_k", top_k)
    check_number("a", a, 0, open_below=True)
    check_number("lam", lam, 0)


def _within(top_k: int, n_images: int) -> int:
    """Return top_k, which the number of images must reach."""
    if top_k > n_images:
        raise ValueError(f"top_k: expected at most the {n_images} images, found {top_k}; lower top_k or add images")
    return top_k
