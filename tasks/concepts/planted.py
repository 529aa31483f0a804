"""The truth test: planted neurons, whose activations are the true coverage of one label, plus noise."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.concepts.interpretable import Floats, Longs, check_similarities
from tasks.detectors.arrays import check_values


class PlantedRates(NamedTuple):
    """Shares of n planted neurons with their label among the 1 or 5 best words; NaN for n = 0."""

    top1: float
    top5: float
    n: int


def planted_activations(coverage: Floats, noise: float, seed: int) -> NDArray[np.float32]:
    """Make one neuron per label: the label's coverage of each image, plus normal noise.

    Parameters
    ----------
    coverage : (N, L) float, share of each image's pixels
    noise : standard deviation of the noise over that of the label's coverage, at least 0
    seed : of the noise, at least 0

    Returns
    -------
    (N, L) float32; a label that all images have alike gives a dead neuron
    """
    values = check_values("coverage", coverage, 2).astype(np.float64)
    if not noise >= 0:
        raise ValueError(f"noise: expected at least 0, found {noise!r}")
    spread = np.where(np.ptp(values, axis=0) > 0, values.std(axis=0), 0.0)
    added = np.random.default_rng(seed).standard_normal(values.shape) * (noise * spread)
    return (values + added).astype(np.float32)


def planted_rates(similarity: Floats, truth: Longs) -> PlantedRates:
    """Measure how often a detector names the planted label.

    Parameters
    ----------
    similarity : (K, S) float
    truth : (K,) int64, the word of each neuron; -1 for neurons to leave out (dead, or no such word)

    Returns
    -------
    PlantedRates; equal similarities: the lower word comes first
    """
    check_similarities(similarity)
    if truth.shape != similarity.shape[:1] or truth.max(initial=-1) >= similarity.shape[1]:
        raise ValueError(f"truth: expected ({len(similarity)},) words below {similarity.shape[1]}, found {truth.shape}")
    rows, words = similarity[truth >= 0], truth[truth >= 0]
    if not len(rows):
        return PlantedRates(float("nan"), float("nan"), 0)
    right = np.take_along_axis(rows, words[:, None], axis=1)
    before = (rows > right) | ((rows == right) & (np.arange(rows.shape[1]) < words[:, None]))
    rank = before.sum(axis=1)
    return PlantedRates(float((rank < 1).mean()), float((rank < 5).mean()), len(rows))
