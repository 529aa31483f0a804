"""Which samples of a class are enough: one selector per file, its entry below, one contract test for all."""

from typing import Protocol

from tasks.coresets.moderate import select_moderate
from tasks.coresets.random import select_random
from tasks.coresets.selection import Floats, Seed, Selection

__all__ = ["SELECTORS", "Selection", "Selector"]


class Selector(Protocol):
    """One class's features and a budget in, the positions to keep out; own parameters are further keywords.

    A selector keeps every sample at `rho=1`, breaks ties by lower index, changes no input and checks what it is given:
    called on a single row it validates its parameters without data.
    """

    def __call__(self, features: Floats, rho: float, *, seed: Seed = 0) -> Selection: ...


SELECTORS: dict[str, Selector] = {
    "random": select_random,
    "moderate": select_moderate,
}
