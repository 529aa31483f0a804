"""Similarities of neurons and concepts from chunks of images, in any order: each equals its one-shot form."""

from functools import partial
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from tasks.detectors.activity import dead_columns
from tasks.detectors.checks import Array, as_kind_of, check_matrix
from tasks.detectors.concept_side import ConceptSide
from tasks.detectors.marginal import subtract_in_place
from tasks.detectors.methods import METHODS, Term, make_method


class Stream:
    """The similarity of one layer's neurons (N, K) to the concepts of P (N, S), from chunks of rows of P.

    Picklable. Holds the activations and (K, S) in float64; `rank_reorder` holds rows of P instead (see there). A dead
    neuron is a row of zeros and takes no part in the marginal.

    Parameters
    ----------
    name : of the similarity
    activations : (N, K) real, NumPy or torch: results are of its kind; differentiable for `cos` and `cos_cubed`
    side : the concept side of the same N images and of S concepts
    params : parameters of the similarity
    """

    def __init__(self, name: str, activations: Array, side: ConceptSide, **params: Any) -> None:  # Any: by method
        method = make_method(name, **params)
        values = check_matrix("activations", activations, (side.n_images, None))
        self._alive = ~dead_columns(values.detach())
        self._term: Term = method.term(values[:, self._alive].double(), side)
        self._n_words, self._lam = side.n_words, float(method.lam)
        self._seen = torch.zeros(len(values), dtype=torch.bool)
        self._like: Array = np.empty(0) if isinstance(activations, np.ndarray) else torch.empty(0)  # kind of results

    def update(self, start: int, scores: Array) -> Self:
        """Add rows start..start + n of P; each row once.

        Parameters
        ----------
        start : index of the first image
        scores : (n, S) real cosines

        Returns
        -------
        this stream
        """
        chunk = check_matrix("scores", scores, (None, self._n_words)).detach()
        rows = self._seen[start : start + len(chunk)] if start >= 0 else self._seen[:0]
        if len(rows) != len(chunk):
            raise ValueError(
                f"start: expected {len(chunk)} rows within 0..{len(self._seen)}, found the first at {start}"
            )
        if rows.any():
            first = start + int(torch.nonzero(rows)[0])
            raise ValueError(f"update: expected each image once, found image {first} again")
        self._term.add(start, chunk.to(self._alive.device))
        rows.fill_(True)
        return self

    def merge(self, other: Self) -> Self:
        """Add the rows of another stream of the same neurons, concepts and parameters; it is not changed.

        Returns
        -------
        this stream
        """
        if (self._seen.shape, self._n_words, self._alive.shape) != (
            other._seen.shape,
            other._n_words,
            other._alive.shape,
        ):
            raise ValueError("merge: expected a stream of the same images, neurons and concepts, found other sizes")
        if (self._seen & other._seen).any():
            first = int(torch.nonzero(self._seen & other._seen)[0])
            raise ValueError(f"merge: expected each image once, found image {first} in both")
        self._term.merge(other._term)
        self._seen |= other._seen
        return self

    def joint(self) -> Array:
        """Return (K, S) float64 before the marginal, which chunks of neurons share (`marginal.subtract`)."""
        return as_kind_of(self._like, self._joint())

    def similarity(self) -> Array:
        """Return (K, S) float64, with the marginal over the neurons of this stream."""
        joint = self._joint()
        return as_kind_of(self._like, subtract_in_place(joint, self._alive, self._lam) if self._lam else joint)

    def _joint(self) -> Tensor:
        """Return (K, S) float64 with zeros for dead neurons, once all rows are there."""
        if not self._seen.all():
            missing = torch.nonzero(~self._seen).flatten()
            raise ValueError(
                f"similarity: expected all {len(self._seen)} images, found {len(missing)} missing, "
                f"the first is image {int(missing[0])}"
            )
        rows = self._term.joint()
        if self._alive.all():
            return rows
        result = rows.new_zeros((len(self._alive), self._n_words))
        return result.index_copy_(0, torch.nonzero(self._alive).flatten(), rows)


class OpenStream(Protocol):
    """A function from one layer's activations, the concept side and parameters to a stream."""

    def __call__(self, activations: Array, side: ConceptSide, **params: Any) -> Stream: ...  # Any: by method


STREAMS: dict[str, OpenStream] = {name: partial(Stream, name) for name in METHODS}
