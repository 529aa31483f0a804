"""The moderate coreset."""

from fractions import Fraction

import numpy as np
import pytest

from tasks.coresets.moderate import distance_to_center, select_moderate
from tasks.coresets.selection import Floats


def on_a_line(*radii: float) -> Floats:
    """Rows at these distances from a mean of 0: each twice, on both sides."""
    radius = np.array(radii, dtype=np.float64)
    return np.concatenate([radius, -radius])[:, None]


def test_it_keeps_the_middle_ranks() -> None:
    selection = select_moderate(on_a_line(0.0, 1.0, 1.1, 1.2, 9.0).astype(np.float32), 0.6)
    np.testing.assert_array_equal(selection.kept, [1, 2, 3, 6, 7, 8])
    np.testing.assert_array_equal(selection.order, [1, 6, 2, 7, 3, 8])


def test_ties_go_to_the_lower_index() -> None:
    # every distance is 1, so the order is the index: positions round(2.5) = 2 to round(7.5) = 8 of ten
    np.testing.assert_array_equal(select_moderate(on_a_line(1, 1, 1, 1, 1), 0.5).order, [2, 3, 4, 5, 6, 7])


def test_the_median_ignores_an_outlier() -> None:
    features = np.array([[0.0], [1.0], [2.0], [3.0], [100.0]])
    # mean 21.2: distances 21.2 20.2 19.2 18.2 78.8, order 3 2 1 0 4; median 2: 2 1 0 1 98, order 2 1 3 0 4
    np.testing.assert_array_equal(select_moderate(features, 0.6).order, [2, 1, 0])
    np.testing.assert_array_equal(select_moderate(features, 0.6, center="median").order, [1, 3, 0])
    np.testing.assert_allclose(distance_to_center(features, "median"), [2, 1, 0, 1, 98])


@pytest.mark.parametrize(
    ("n", "rho", "low", "high"),
    [
        (10, 0.6, 2, 8),
        (10, 0.1, 4, 6),  # 4.5 and 5.5, both to even: two rows for a budget of one
        (30, 0.1, 14, 16),  # 13.5 and 16.5, both to even: two rows for a budget of three
        (3, 2 / 3, 0, 2),  # 0.5 and 2.5
        (4, 0.5, 1, 3),
        (110, 0.1, 50, 61),  # 60.5 exactly, but 110 * 0.55 is one bit above it
    ],
)
def test_the_window_rounds_half_to_even(n: int, rho: float, low: int, high: int) -> None:
    np.testing.assert_array_equal(select_moderate(np.zeros((n, 1)), rho).order, np.arange(low, high))


def test_the_count_is_within_two_of_the_budget() -> None:
    for n in range(1, 120):
        for percent in range(1, 101):
            kept = select_moderate(np.zeros((n, 1)), percent / 100).kept
            assert abs(len(kept) - Fraction(percent, 100) * n) <= Fraction(3, 2)
            assert abs(kept[0] + kept[-1] - (n - 1)) <= 1  # about the middle


@pytest.mark.parametrize(
    ("n", "fewest", "expected"),
    [
        (2, 1, [1]),  # 1 and 1: empty; the upper of the two middle rows
        (4, 1, [2]),
        (4, 2, [1, 2]),
        (5, 2, [2, 3]),
        (5, 3, [1, 2, 3]),
        (2, 3, [0, 1]),  # fewer rows than asked for: all
        (1, 5, [0]),
    ],
)
def test_a_short_window_is_widened_about_the_middle(n: int, fewest: int, expected: list[int]) -> None:
    np.testing.assert_array_equal(select_moderate(np.zeros((n, 1)), 1e-6, min_per_class=fewest).order, expected)


def test_the_centre_is_computed_in_float64() -> None:
    features = np.full((4096, 1), 60000.0, dtype=np.float16)  # their float16 sum overflows
    features[:2] = [[0.0], [1.0]]
    np.testing.assert_array_equal(select_moderate(features, 1.0).order[-2:], [1, 0])


def test_it_is_free_of_rotation_and_order() -> None:
    rng = np.random.default_rng(2)
    features = rng.normal(size=(101, 6))
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    kept = select_moderate(features, 0.3).kept
    np.testing.assert_array_equal(select_moderate(features @ rotation + 5, 0.3).kept, kept)
    order = rng.permutation(101)
    np.testing.assert_array_equal(np.sort(order[select_moderate(features[order], 0.3).kept]), kept)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"center": "mode"}, "center: expected 'mean' or 'median', found 'mode'"),
        ({"min_per_class": 0}, "min_per_class: expected at least 1, found 0"),
        ({"min_per_class": 1.5}, r"min_per_class: expected an integer, found 1\.5"),
        ({"min_per_class": True}, "min_per_class: expected an integer, found True"),
    ],
)
def test_bad_parameters_are_refused(parameters: dict[str, object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        select_moderate(np.zeros((3, 1)), 0.5, **parameters)  # type: ignore[arg-type]  # the point of the test
