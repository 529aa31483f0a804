"""Distances between neurons and anchor words in the space of texts, and among neurons."""

from typing import NamedTuple, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.detectors.checks import Array, check_matrix, result_dtype

ROWS = 1024  # anchors, or neurons, at a time


class NearestNeurons(NamedTuple):
    """For each anchor the distance to its nearest neuron, (A,) float64, and that neuron, (A,) int64."""

    distance: NDArray[np.float64]
    neuron: NDArray[np.int64]


@overload
def anchor_distance(embeddings: Tensor, anchors: Array) -> Tensor: ...
@overload
def anchor_distance(embeddings: Array, anchors: Array) -> float | Tensor: ...


def anchor_distance(embeddings: Array, anchors: Array) -> float | Tensor:
    """Measure how far anchors are from the neurons: the mean over anchors of the distance to the nearest neuron.

    Parameters
    ----------
    embeddings : (K, e) real
    anchors : (A, e) real, unit rows

    Returns
    -------
    a float, or for torch a tensor () that carries the gradient to the embeddings, finite at distance 0

    Notes
    -----
    Eq. 2.2 of Concept-Monitor: d = mean_i min_j ||u_j - f(a_i)||. Smaller means more diverse neurons.
    """
    points, targets = _pair(embeddings, anchors)
    chosen = points.double()[_nearest(points, targets)]
    # the gradient of this norm at 0 is 0
    mean = torch.linalg.vector_norm(chosen - targets.double(), dim=1).mean()
    return float(mean) if isinstance(embeddings, np.ndarray) else mean.to(result_dtype(points, targets))


def anchor_distances(embeddings: Array, anchors: Array) -> NearestNeurons:
    """Find the nearest neuron of each anchor.

    Parameters
    ----------
    embeddings : (K, e) real
    anchors : (A, e) real

    Returns
    -------
    NearestNeurons; among equally near neurons the lowest index
    """
    points, targets = _pair(embeddings, anchors)
    points = points.detach()
    nearest = _nearest(points, targets)
    distance = torch.linalg.vector_norm(points.double()[nearest] - targets.double(), dim=1)
    return NearestNeurons(distance.cpu().numpy(), nearest.cpu().numpy())


def neuron_distances(embeddings: Array, anchors: Array) -> NDArray[np.float64]:
    """Measure the distance of each neuron, for example a tracked one, to each anchor.

    Parameters
    ----------
    embeddings : (K, e) real
    anchors : (A, e) real

    Returns
    -------
    (K, A) float64
    """
    from scipy.spatial.distance import cdist

    points, targets = _pair(embeddings, anchors)
    distances: NDArray[np.float64] = cdist(_doubles(points), _doubles(targets))
    return distances


def mean_pairwise_distance(embeddings: Array) -> float:
    """Measure the mean distance of two different neurons.

    Parameters
    ----------
    embeddings : (K, e) real

    Returns
    -------
    the mean over all pairs; NaN for one neuron. Holds (1024, K) float64.
    """
    from scipy.spatial.distance import cdist

    points = _doubles(check_matrix("embeddings", embeddings))
    n = len(points)
    if n < 2:
        return float("nan")
    # differences, not Gram matrices: those would lose small distances
    total = sum(float(cdist(points[start : start + ROWS], points).sum()) for start in range(0, n, ROWS))
    return total / (n * (n - 1))


def _pair(embeddings: Array, anchors: Array) -> tuple[Tensor, Tensor]:
    """Return checked embeddings and anchors on one device."""
    points = check_matrix("embeddings", embeddings)
    return points, check_matrix("anchors", anchors, (None, points.shape[1])).detach().to(points.device)


@torch.no_grad()
def _nearest(points: Tensor, targets: Tensor) -> Tensor:
    """Return (A,) int64: the nearest point of each target, the lowest index among equals."""
    wide = points.double()
    half_squares, index = (wide**2).sum(dim=1) / 2, torch.arange(len(wide), device=wide.device)
    nearest = []
    for start in range(0, len(targets), ROWS):
        score = targets[start : start + ROWS].double() @ wide.T - half_squares  # falls with the distance
        best = score.amax(dim=1, keepdim=True)
        nearest.append(torch.where(score == best, index, len(wide)).amin(dim=1))
    return torch.cat(nearest)


def _doubles(values: Tensor) -> NDArray[np.float64]:
    """Return values as NumPy array in float64."""
    result: NDArray[np.float64] = values.detach().double().cpu().numpy()
    return result
