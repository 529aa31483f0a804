"""The category of each word of a list."""

from collections.abc import Sequence

import numpy as np

from tasks.concepts.interpretable import Floats, Longs

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
