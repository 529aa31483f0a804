"""Phi, the mean distance over classes, and its robustness over budgets (Behzadi-Khormouji & Oramas, Eq. 1)."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

BUDGETS = (0.1, 0.5)  # the paper's range for robustness
_SLACK = 1e-9  # a budget of 0.1 + 0.2 counts as 0.3


class Phi(NamedTuple):
    """A mean over classes, NaN where no class has a distance; `left_out` counts the classes without distance."""

    mean: float
    left_out: int


class Robustness(NamedTuple):
    """Mean and population standard deviation over budgets, NaN without budgets."""

    mean: float
    std: float


def phi(distances: ArrayLike) -> Phi:
    """Average the distances of all classes.

    Parameters
    ----------
    distances : (C,) float radians, NaN (or inf) where a class is left out

    Returns
    -------
    Phi, the mean over the finite distances and the number of the others
    """
    values = np.asarray(distances, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"distances: expected shape (classes,), found {values.shape}")
    finite = values[np.isfinite(values)]
    return Phi(float(finite.mean()) if finite.size else float("nan"), int(values.size - finite.size))


def robustness(phi_by_budget: Mapping[float, float]) -> Robustness:
    """Average Phi over the budgets from 10 % to 50 %.

    Parameters
    ----------
    phi_by_budget : Phi in radians by budget in (0, 1]; other budgets and NaN take no part

    Returns
    -------
    Robustness, radians
    """
    inside = [value for budget, value in phi_by_budget.items() if counts_for_robustness(budget)]
    values = np.array([value for value in inside if np.isfinite(value)], dtype=np.float64)
    if not values.size:
        return Robustness(float("nan"), float("nan"))
    return Robustness(float(values.mean()), float(values.std()))


def counts_for_robustness(budget: float) -> bool:
    """Return whether a budget lies in the paper's range of 10 % to 50 %, ends included."""
    low, high = BUDGETS
    return low - _SLACK <= budget <= high + _SLACK
