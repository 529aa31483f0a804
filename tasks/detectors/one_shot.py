"""Similarities of whole matrices: the streams of `streaming`, over blocks of rows, so that temporaries stay small."""

from typing import Any

from tasks.detectors.checks import Array, as_kind_of, as_tensor, check_matrix, result_dtype
from tasks.detectors.concept_side import ConceptMoments
from tasks.detectors.methods import make_method
from tasks.detectors.streaming import STREAMS

BLOCK = 1 << 21  # values of P at a time: 16 MB in float64


def similarity(name: str, activations: Array, scores: Array, **params: Any) -> Array:  # Any: by method
    """Measure the similarity of each neuron to each concept.

    Parameters
    ----------
    name : "cos", "cos_cubed", "wpmi", "soft_wpmi" or "rank_reorder"
    activations : (N, K) real, the summary of each neuron on each image; `cos` and `cos_cubed` are differentiable in it
    scores : (N, S) real, the cosine of each image and each concept
    params : parameters of the similarity: `cosines.CosCubed`, `pointwise.Wpmi`, `pointwise.SoftWpmi`,
        `rank_reorder.RankReorder`

    Returns
    -------
    (K, S), larger is more similar, of the kind of `activations`; float32 for inputs of at most 32 bits, else float64.
    A dead neuron, equal on all images, is a row of zeros and takes no part in the marginal.

    Raises
    ------
    TypeError : neither NumPy nor torch, or not real numbers
    ValueError : wrong shapes, NaN, a parameter out of range, more top images than images

    Notes
    -----
    Oikarinen and Weng 2023 (CLIP-Dissect). Equal activations: the lower image index comes first.
    """
    make_method(name, **params)
    neurons = check_matrix("activations", activations)
    matrix = check_matrix("scores", scores, (len(neurons), None)).detach()
    step = max(1, BLOCK // matrix.shape[1])
    moments = ConceptMoments()
    for start in range(0, len(matrix), step):
        moments.update(matrix[start : start + step])
    stream = STREAMS[name](neurons, moments.side(), **params)
    for start in range(0, len(matrix), step):
        stream.update(start, matrix[start : start + step])
    result = as_tensor("similarity", stream.similarity())
    return as_kind_of(activations, result.to(result_dtype(neurons, matrix)))
