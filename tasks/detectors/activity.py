"""Neurons that a probing set does not move, or hardly."""

import torch
from torch import Tensor

from tasks.detectors.checks import Array, as_kind_of, check_count, check_matrix


def dead(activations: Array) -> Array:
    """Find the neurons with one value on all images.

    Parameters
    ----------
    activations : (N, K) real

    Returns
    -------
    (K,) bool, of the kind that came in
    """
    return as_kind_of(activations, dead_columns(check_matrix("activations", activations)))


def few_positive(activations: Array, top_k: int) -> Array:
    """Find the neurons with fewer than `top_k` distinct positive values: ties decide their top images.

    Parameters
    ----------
    activations : (N, K) real
    top_k : number of images that a similarity reads, at least 1

    Returns
    -------
    (K,) bool, of the kind that came in
    """
    check_count("top_k", top_k)
    ordered = check_matrix("activations", activations).sort(dim=0).values
    first = torch.cat([ordered[:1] > 0, (ordered[1:] > ordered[:-1]) & (ordered[1:] > 0)])
    return as_kind_of(activations, first.sum(dim=0) < top_k)


def dead_columns(activations: Tensor) -> Tensor:
    """Return (K,) bool: columns of one value."""
    return activations.amax(dim=0) == activations.amin(dim=0)
