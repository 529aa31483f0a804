"""Concept detectors: how similar each neuron of a layer is to each concept word, from a probing set of images."""

from functools import partial
from typing import Any, Protocol

from tasks.detectors.checks import Array
from tasks.detectors.methods import METHODS, make_method
from tasks.detectors.one_shot import similarity

__all__ = ["SIMILARITIES", "Similarity", "check_similarity"]


class Similarity(Protocol):
    """A function from activations (N, K) and image-concept cosines (N, S) to the similarity (K, S).

    The parameters of a method are keywords. A dead neuron is a row of zeros. `tasks.detectors.streaming.STREAMS` has
    the same methods for chunks of images.
    """

    def __call__(self, activations: Array, scores: Array, **params: Any) -> Array: ...  # Any: by method


SIMILARITIES: dict[str, Similarity] = {name: partial(similarity, name) for name in METHODS}


def check_similarity(name: str, **params: Any) -> None:  # Any: by method
    """Check the parameters of a similarity without data.

    Raises
    ------
    ValueError : names the bad parameter
    """
    make_method(name, **params)
