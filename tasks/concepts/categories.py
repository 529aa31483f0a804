"""Counts of interpretable neurons by concept and by category."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.concepts.interpretable import Bools, Floats, Longs

OTHER = -1  # a word that no label has


def primary_categories(words: Sequence[str], names: Sequence[str], categories: Longs, coverage: Floats) -> Longs:
    """Find the category of each word: that of its label number with the largest coverage.

    Parameters
    ----------
    words : S words
    names : L names of label numbers, several numbers may have one name; letter case does not matter
    categories : (L,) integer, category index of each number, -1 for number 0
    coverage : (L,) float, pixels that each number covers in all images

    Returns
    -------
    (S,) int64 category index, -1 (other) for words that are not a name; the lowest number among equal coverages
    """
    if not len(names) == len(categories) == len(coverage):
        raise ValueError(
            "names, categories, coverage: expected one per label number, "
            f"found {len(names)}, {len(categories)} and {len(coverage)}"
        )
    primary: dict[str, int] = {}
    for number in np.argsort(-coverage, kind="stable").tolist():
        if categories[number] >= 0:
            primary.setdefault(names[number].casefold(), int(categories[number]))
    return np.array([primary.get(word.casefold(), OTHER) for word in words], dtype=np.int64)


def category_counts(primary: Longs, best: Longs, counted: Bools, n_categories: int) -> Longs:
    """Count interpretable neurons by the category of their best word.

    Parameters
    ----------
    primary : (S,) int64, category index of each word, -1 for other
    best : (K,) int64, best word of each neuron
    counted : (K,) bool, interpretable
    n_categories : number of categories

    Returns
    -------
    (n_categories + 1,) int64, the last is other
    """
    found = primary[best[counted]]
    return np.bincount(np.where(found < 0, n_categories, found), minlength=n_categories + 1).astype(np.int64)


def concept_counts(best: Longs, counted: Bools, n_words: int) -> Longs:
    """Count the interpretable neurons of each word.

    Parameters
    ----------
    best : (K,) int64, best word of each neuron
    counted : (K,) bool, interpretable
    n_words : S

    Returns
    -------
    (S,) int64; its entries at the words of the task's own classes are those classes' counts
    """
    return np.bincount(best[counted], minlength=n_words).astype(np.int64)


def distinct_concepts(counts: Longs) -> int:
    """Count the words that some interpretable neuron has: (S,) counts in."""
    return int((counts > 0).sum())


def common_concepts(counts: Longs, top: int) -> NDArray[np.int64]:
    """Return the at most `top` words with the most neurons, int64, at least one each, by falling count, then index."""
    order = np.argsort(-counts, kind="stable")[:top]
    return order[counts[order] > 0].astype(np.int64)
