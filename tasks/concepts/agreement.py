"""Agreement of two detectors about the same neurons, next to the value that shuffled neurons would have."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tasks.detectors.checks import Array, check_matrix


class Agreement(NamedTuple):
    """Two detectors on the same n neurons; NaN for n = 0.

    Attributes
    ----------
    same : share of the neurons with the same best word
    cosine : mean cosine of the two best words' text features
    null_same, null_cosine : their expectations where one detector's words are given to the neurons in random order
    n : number of neurons
    """

    same: float
    cosine: float
    null_same: float
    null_cosine: float
    n: int


def agreement(words_a: Sequence[str], words_b: Sequence[str], text_a: Array, text_b: Array) -> Agreement:
    """Compare the best words of two detectors, neuron by neuron.

    Parameters
    ----------
    words_a, words_b : best word of each of n neurons, for example of those that both call interpretable
    text_a, text_b : (n, e) real, text features of those words, unit rows

    Returns
    -------
    Agreement; the nulls are exact means over all orders, without a seed
    """
    n = len(words_a)
    if len(words_b) != n:
        raise ValueError(f"words: expected the same neurons, found {n} and {len(words_b)}")
    if n == 0:
        nothing = float("nan")
        return Agreement(nothing, nothing, nothing, nothing, 0)
    first = check_matrix("text_a", text_a, (n, None)).detach().double().cpu()
    second = check_matrix("text_b", text_b, (n, first.shape[1])).detach().double().cpu()
    same = np.mean([a == b for a, b in zip(words_a, words_b, strict=True)])
    counts_b = Counter(words_b)
    null_same = sum(counts_b[word] for word in words_a) / n**2
    cosine, null_cosine = (first * second).sum(dim=1).mean(), first.mean(dim=0) @ second.mean(dim=0)
    return Agreement(float(same), float(cosine), null_same, float(null_cosine), n)
