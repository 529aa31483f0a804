"""Phi and robustness, by hand."""

import math

import numpy as np
import pytest

from tasks.metrics.robustness import phi, robustness


def test_phi_is_the_mean_of_the_classes_that_count() -> None:
    mean, left_out = phi(np.array([0.2, np.nan, 0.6, np.inf]))
    assert mean == pytest.approx(0.4)
    assert left_out == 2
    assert phi([0.5]) == (0.5, 0)


def test_phi_of_no_class_is_not_a_number() -> None:
    nothing = phi(np.array([np.nan, np.nan]))
    assert math.isnan(nothing.mean)
    assert nothing.left_out == 2
    assert phi([]).left_out == 0
    with pytest.raises(ValueError, match=r"distances: expected shape \(classes,\), found \(1, 1\)"):
        phi([[0.5]])


def test_robustness_takes_ten_to_fifty_percent() -> None:
    found = robustness({0.05: 9.0, 0.1: 0.5, 0.1 + 0.2: 0.3, 0.5: 0.1, 0.51: 9.0, 1.0: 0.0})
    assert found.mean == pytest.approx(0.3)
    assert found.std == pytest.approx(math.sqrt((0.04 + 0.04) / 3))  # population


def test_robustness_leaves_out_what_is_missing() -> None:
    assert robustness({0.1: 0.4, 0.2: float("nan")}) == (0.4, 0.0)
    assert all(math.isnan(part) for part in robustness({1.0: 0.0}))
