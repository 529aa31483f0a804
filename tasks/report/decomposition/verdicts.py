"""How the decomposition page words what holds, and what chance alone would give."""

import numpy as np

from tasks.figures.views import fixed
from tasks.report.formats import NBSP


def verdict(claim: str, holds: bool) -> str:
    """Say whether a claim of the paper holds here."""
    return f"The paper's claim that {claim} {'holds' if holds else 'does not hold'} here"


def points(difference: float) -> str:
    """Print the size of a difference of two shares in percentage points."""
    size = 100 * abs(difference)
    return f"{fixed(size, 1)}{NBSP}points" if size >= 0.1 or size == 0 else f"{size:.1g}{NBSP}points"


def chance(first: float, second: float, n: float) -> float:
    """Return two standard errors of the difference of two accuracies on n images, taken as independent.

    Both are of the same images, which makes the real error smaller: a larger difference is not chance.
    """
    return 2 * float(np.sqrt((first * (1 - first) + second * (1 - second)) / n)) if n > 0 else float("nan")


def chance_of_draws(first: tuple[float, float], second: tuple[float, float], n: float) -> float:
    """Return `chance` with two spreads over draws, each an accuracy and its spread (NaN with one draw).

    Images and draws vary independently, so the squares add up.
    """
    spread = np.nan_to_num([first[1], second[1]])
    return float(np.sqrt(chance(first[0], second[0], n) ** 2 + 4 * (spread**2).sum()))


def mean_chance(accuracy: float, n: float) -> float:
    """Return two standard errors of the difference of two accuracies near the given one."""
    accuracy = min(max(accuracy, 0.0), 1.0)
    return chance(accuracy, accuracy, n)
