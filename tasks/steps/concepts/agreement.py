"""Whether two detectors say the same of the same neurons, as rows of the report."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pandas as pd

from tasks.steps.concepts.words import Words

Pair = tuple[Mapping[str, str | int], pd.DataFrame, pd.DataFrame, Words, Words]


def agreement_rows(pairs: Iterable[Pair]) -> Iterator[Mapping[str, object]]:
    """Yield the agreement of two detectors on the neurons that both call interpretable, with its null.

    Parameters
    ----------
    pairs : where the rows belong, the best words of either detector by neuron, and their word lists
    """
    from tasks.concepts.agreement import agreement

    for where, one, other, words, others in pairs:
        both = (one["interpretable"] & other["interpretable"]).to_numpy()
        named = [list(table["word"][both]) for table in (one, other)]
        text = [_vectors(each, found) for each, found in zip(named, (words, others), strict=True)]
        found = agreement(named[0], named[1], text[0], text[1])
        at = {key: value for key, value in where.items() if key != "snapshot"} | {"n": found.n}
        yield at | {"check": "agreement: same word", "value": found.same, "baseline": found.null_same}
        yield at | {"check": "agreement: cosine", "value": found.cosine, "baseline": found.null_cosine}


def _vectors(named: list[str], words: Words) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    """Return the vector of each word in the space of words, (n, e)."""
    index = {name: i for i, name in enumerate(words.names)}
    return words.text[[index[name] for name in named]]
