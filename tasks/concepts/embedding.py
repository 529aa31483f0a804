"""Neurons in a space of texts: each is the mean of the words' features, weighted by its similarity to them."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.concepts.distances import anchor_distance
from tasks.detectors.checks import Array, as_kind_of, check_matrix, check_number, result_dtype


def neuron_embeddings(similarity: Array, text: Array, temperature: float) -> Array:
    """Embed neurons in the space of the words' features.

    Parameters
    ----------
    similarity : (K, S) real, of each neuron to each word
    text : (S, e) real, unit rows
    temperature : above 0; towards 0 each neuron becomes its best word, or the mean of equally good ones

    Returns
    -------
    (K, e), of the kind of `similarity`; not normalised; float32 for inputs of at most 32 bits, else float64;
    differentiable in both

    Notes
    -----
    Eq. 2.1 of Concept-Monitor: u_n = sum_i softmax(sim_n / T)_i f(w_i). Leave dead neurons out: their zeros would be
    the mean of all words.
    """
    check_number("temperature", temperature, 0, open_below=True)
    scores = check_matrix("similarity", similarity)
    features = check_matrix("text", text, (scores.shape[1], None)).to(scores.device)
    return as_kind_of(similarity, _embed(scores, features, temperature).to(result_dtype(scores, features)))


def temperature_ablation(
    similarity: Array, text: Array, anchors: Array, temperatures: Sequence[float]
) -> NDArray[np.float64]:
    """Measure the anchor distance of neurons at several temperatures.

    Parameters
    ----------
    similarity : (K, S) real
    text : (S, e) real, unit rows
    anchors : (A, e) real, unit rows
    temperatures : each above 0

    Returns
    -------
    (temperatures,) float64
    """
    distances = [anchor_distance(neuron_embeddings(similarity, text, each), anchors) for each in temperatures]
    return np.array([float(distance) for distance in distances], dtype=np.float64)


def _embed(scores: Tensor, features: Tensor, temperature: float) -> Tensor:
    """Return embeddings in float64."""
    wide = scores.double()
    # the largest logit is 0 however small the temperature is
    weights = torch.softmax((wide - wide.amax(dim=1, keepdim=True).detach()) / temperature, dim=1)
    return weights @ features.double()
