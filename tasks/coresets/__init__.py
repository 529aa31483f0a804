"""Coreset selectors: each has a file and an entry below; one contract test covers all."""

from collections.abc import Iterable
from typing import Protocol

from tasks.coresets.dgpruning import select_dgpruning
from tasks.coresets.moderate import select_moderate, select_moderate_across
from tasks.coresets.random import select_random
from tasks.coresets.selection import Floats, Seed, Selection

__all__ = ["ACROSS_CLASSES", "BLIND", "DRAWN", "SELECTORS", "AcrossClasses", "Selection", "Selector"]


class Selector(Protocol):
    """A function from one class's features and a budget to the positions that are kept.

    The parameters of a method are further keywords. A selector keeps every sample at `rho=1`. It breaks ties by lower
    index, does not change its inputs and checks them. A call on a single row validates the parameters without data.
    """

    def __call__(self, features: Floats, rho: float, *, seed: Seed = 0) -> Selection: ...


SELECTORS: dict[str, Selector] = {
    "random": select_random,
    "moderate": select_moderate,
    "dgpruning": select_dgpruning,
}
BLIND = frozenset({"random"})  # selectors that do not read features: the coresets of all networks are the same
DRAWN = frozenset({"random"})  # selectors that read the seed: the others choose the same each time


class AcrossClasses(Protocol):
    """A function from the features of all classes and a budget of the whole data set to a selection for each class.

    The parameters of a method are further keywords, the same as those of the selector with its name.
    """

    def __call__(self, classes: Iterable[Floats], rho: float) -> list[Selection]: ...


ACROSS_CLASSES: dict[str, AcrossClasses] = {  # selectors that take `scope: dataset` in a config
    "moderate": select_moderate_across,
}
