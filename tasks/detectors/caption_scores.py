"""How well captions agree with those of people: BLEU and common words, each with the captions of other regions."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tasks.detectors.caption_words import words_of

LONGEST = 4  # words of a sequence
EXCHANGES = 10  # orders of the captions whose mean is the null


class CaptionScores(NamedTuple):
    """Agreement of captions with those of people, 0..1, and the same where other regions get the captions.

    Attributes
    ----------
    bleu : of all captions together
    words : mean over captions of the F1 of their words, each word once
    null_bleu, null_words : means over `EXCHANGES` exchanges
    n : number of captions
    """

    bleu: float
    words: float
    null_bleu: float
    null_words: float
    n: int


def caption_scores(found: Sequence[str], captions: Sequence[str], seed: int) -> CaptionScores:
    """Compare captions with those of people.

    Parameters
    ----------
    found : predicted caption of each of n groups of regions
    captions : the caption of people; each group has another one
    seed : of the exchanges, in which no group keeps its caption

    Returns
    -------
    CaptionScores; NaN without a caption, and nulls of NaN for a single one
    """
    predicted, known = ([words_of(text) for text in texts] for texts in (found, captions))
    n = len(predicted)
    if n == 0:
        return CaptionScores(math.nan, math.nan, math.nan, math.nan, 0)
    own = (bleu(predicted, [[words] for words in known]), _common(predicted, known))
    if n == 1:
        return CaptionScores(*own, math.nan, math.nan, 1)
    rng, nulls = np.random.default_rng(seed), []
    for _ in range(EXCHANGES):
        order = rng.permutation(n)
        given = dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))
        others = [known[given[row]] for row in range(n)]
        nulls.append((bleu(predicted, [[words] for words in others]), _common(predicted, others)))
    null = np.mean(nulls, axis=0)
    return CaptionScores(*own, float(null[0]), float(null[1]), n)


def bleu(predicted: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> float:
    """Return the BLEU of a corpus, 0..1 (Papineni et al. 2002).

    Parameters
    ----------
    predicted : words of each caption
    references : words of the captions that hold for it, at least one each

    Returns
    -------
    geometric mean of the clipped precisions of 1 to 4 words, times the brevity penalty; 0 where one precision is 0
    """
    matches, totals, n_words, n_expected = [0] * LONGEST, [0] * LONGEST, 0, 0
    for words, known in zip(predicted, references, strict=True):
        n_words += len(words)
        n_expected += min((abs(len(each) - len(words)), len(each)) for each in known)[1]
        for size in range(1, LONGEST + 1):
            found, allowed = _sequences(words, size), Counter[tuple[str, ...]]()
            for each in known:
                allowed |= _sequences(each, size)
            matches[size - 1] += (found & allowed).total()
            totals[size - 1] += found.total()
    if not all(matches):
        return 0.0
    precision = sum(math.log(match / total) for match, total in zip(matches, totals, strict=True)) / LONGEST
    return math.exp(min(0.0, 1 - n_expected / n_words) + precision)


def _common(predicted: Sequence[Sequence[str]], known: Sequence[Sequence[str]]) -> float:
    """Return the mean F1 of the words of captions, each word once."""
    pairs = [(set(one), set(other)) for one, other in zip(predicted, known, strict=True)]
    return sum(2 * len(one & other) / max(1, len(one) + len(other)) for one, other in pairs) / len(pairs)


def _sequences(words: Sequence[str], size: int) -> Counter[tuple[str, ...]]:
    """Return the sequences of `size` words with their counts."""
    return Counter(tuple(words[start : start + size]) for start in range(len(words) - size + 1))
