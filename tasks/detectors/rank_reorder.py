"""`rank_reorder`: how well a concept's order of a neuron's top images gives back the activations (CLIP-Dissect)."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from tasks.detectors.checks import check_number, column_blocks
from tasks.detectors.concept_side import ConceptSide
from tasks.detectors.top_images import top_images

PERMUTATIONS = 5  # random orders of the baseline, as in the authors' code
MIN_MEAN = 1e-3  # guard of the root: the mean cosine of a concept may be 0 or negative
COLUMNS = 2048  # concepts at a time


@dataclass(frozen=True)
class RankReorder:
    """Parameters of `rank_reorder`.

    Attributes
    ----------
    p : power of the differences, above 0
    top_fraction : share of the images, 0 to 1; int(N top_fraction) images, at least 2
    scale_p : power of the mean cosine that divides the error, at least 0
    seed : of the baseline's random orders, at least 0; all neurons share them, so that chunks of neurons agree
    """

    p: float = 3.0
    top_fraction: float = 0.05
    scale_p: float = 0.5
    seed: int = 0
    lam = 0.0

    def __post_init__(self) -> None:
        check_number("p", self.p, 0, open_below=True)
        check_number("top_fraction", self.top_fraction, 0, 1, open_below=True)
        check_number("scale_p", self.scale_p, 0)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int | np.integer) or self.seed < 0:
            raise ValueError(f"seed: expected an integer of at least 0, found {self.seed!r}")

    def term(self, values: Tensor, side: ConceptSide) -> "RankErrors":
        """Return the term of neurons (N, A) float64, each with two values or more."""
        top_n = int(len(values) * self.top_fraction)
        if top_n < 2:
            raise ValueError(
                f"top_fraction: expected a share that gives at least 2 of {len(values)} images, "
                f"found {self.top_fraction}, which gives {top_n}"
            )
        return RankErrors(self, values.detach(), top_n, side.n_words)


class RankErrors:
    """The rows of P that some neuron's top images need; the errors are made at the end: a term of a stream.

    Concepts do not depend on each other: for many words, run blocks of words one after the other. Holds (rows, S) in
    the width of P; rows are at most N, and at most A times the number of top images.
    """

    def __init__(self, parameters: RankReorder, values: Tensor, top_n: int, n_words: int) -> None:
        self._parameters = parameters
        images = top_images(values, top_n)
        targets = values.gather(0, images)  # falling
        spread = targets[0] - targets[-1]
        self._targets = (targets - targets[-1]) / torch.where(spread > 0, spread, 1.0)  # 0 to 1: powers stay finite
        self._images, rows = torch.unique(images, return_inverse=True)
        # Rows in the order of the images: a stable order by cosine then gives equal cosines to the lower image first,
        # as equal activations are.
        self._rows, self._ranks = torch.sort(rows.reshape(images.shape), dim=0)
        self._scores = values.new_zeros((0, n_words), dtype=torch.float32)

    def add(self, start: int, scores: Tensor) -> None:
        """Keep the rows of P from `start`, (n, S)."""
        kept = torch.promote_types(self._scores.dtype, scores.dtype)
        if not len(self._scores):
            self._scores = scores.new_zeros((len(self._images), scores.shape[1]), dtype=kept)
        elif kept != self._scores.dtype:
            self._scores = self._scores.to(kept)
        needed = (self._images >= start) & (self._images < start + len(scores))
        self._scores[needed] = scores[self._images[needed] - start].to(kept)

    def merge(self, other: Self) -> None:
        """Add the rows that another instance keeps; rows that it does not have are 0 there."""
        if not len(self._scores):
            self._scores = other._scores.clone()
        elif len(other._scores):
            self._scores = self._scores + other._scores

    def joint(self) -> Tensor:
        """Return (A, S) float64, a copy: minus the error relative to random orders."""
        n_neurons, n_words = self._targets.shape[1], self._scores.shape[1]
        result = self._targets.new_empty((n_neurons, n_words))
        for neuron in range(n_neurons):
            for part in column_blocks(n_words, COLUMNS):
                result[neuron, part] = self._errors(neuron, self._scores[self._rows[:, neuron], part])
        return result.neg_()

    def _errors(self, neuron: int, scores: Tensor) -> Tensor:
        """Return (s,) relative errors of concepts with cosines (top_n, s), rows in the order of `_rows`."""
        p, target = float(self._parameters.p), self._targets[:, neuron]
        order = torch.sort(scores, dim=0, descending=True, stable=True).indices
        errors = (target[:, None] - target[self._ranks[:, neuron]][order]).abs_().pow_(p).mean(dim=0)
        baseline = self._baseline(target, p)
        # equal activations do not have an order: no concept is better than a random one
        relative = errors / baseline if baseline > 0 else torch.ones_like(errors)
        mean = scores.to(torch.float64).mean(dim=0).clamp(min=MIN_MEAN)
        return relative / mean ** float(self._parameters.scale_p)

    def _baseline(self, target: Tensor, p: float) -> float:
        """Return the mean error of random orders of the activations (top_n,)."""
        rng = np.random.default_rng(int(self._parameters.seed))
        orders = [torch.from_numpy(rng.permutation(len(target))).to(target.device) for _ in range(PERMUTATIONS)]
        return float(torch.stack([(target - target[order]).abs() ** p for order in orders]).mean())
