"""Nulls: what a detector finds where there is nothing to find."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.detectors.arrays import check_values


def permuted_activations(activations: NDArray[Any], seed: int, first: int = 0) -> NDArray[Any]:  # Any: real numbers
    """Permute the images of each neuron on its own.

    Parameters
    ----------
    activations : (N, K) real
    seed : of the permutations, at least 0
    first : index of the first neuron in its layer: chunks of neurons get the permutations of the whole

    Returns
    -------
    (N, K) of the same dtype; each column has its values in another order
    """
    check_values("activations", activations, 2)
    result = np.empty_like(activations)
    for column in range(activations.shape[1]):
        order = np.random.default_rng([seed, first + column]).permutation(len(activations))
        result[:, column] = activations[order, column]
    return result


def shuffled_images(n_images: int, seed: int) -> NDArray[np.int64]:
    """Give each image the label maps of another one.

    Parameters
    ----------
    n_images : at least 2
    seed : of the order, at least 0

    Returns
    -------
    (n_images,) int64, a permutation without a fixed point: image i gets the maps of image result[i]
    """
    if n_images < 2:
        raise ValueError(f"n_images: expected at least 2, found {n_images}")
    order = np.random.default_rng(seed).permutation(n_images)
    result = np.empty(n_images, dtype=np.int64)
    result[order] = np.roll(order, 1)  # one cycle through all images
    return result
