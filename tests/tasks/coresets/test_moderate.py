"""The moderate coreset."""

import tracemalloc
from fractions import Fraction

import numpy as np
import pytest

from tasks.coresets.moderate import distance_to_center, select_moderate, select_moderate_across
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


def test_one_window_over_all_classes_by_hand() -> None:
    # distances 1 1 5 5, 2 2 3 3 and 9 9: sorted by class and index 0 1 | 4 5 | 6 7 | 2 3 | 8 9; ranks 3 to 6 of ten
    classes = [on_a_line(1, 5), on_a_line(2, 3), on_a_line(9)]
    kept = [selection.order.tolist() for selection in select_moderate_across(classes, 0.4)]
    # on_a_line(1, 5) has the rows 1, 5, -1, -5: its rows 0 and 2 have ranks 0 and 1, its rows 1 and 3 ranks 6 and 7
    assert kept == [[1], [2, 1, 3], [0]]  # no row of the third is in the window: its nearest to rank 4.5 is rank 8


def test_a_class_outside_the_window_keeps_its_rows_nearest_the_middle() -> None:
    classes = [on_a_line(1, 2, 3), on_a_line(0.1, 0.2)]  # the second has the ranks 0 to 3 of ten
    found = select_moderate_across(classes, 0.2, min_per_class=3)
    np.testing.assert_array_equal(found[1].order, [2, 1, 3])  # ranks 1, 2 and 3
    assert len(found[0].kept) == 3
    assert len(select_moderate_across(classes, 0.2, min_per_class=99)[1].kept) == 4


def test_a_single_class_gives_the_same_in_both_scopes() -> None:
    features = np.random.default_rng(1).normal(size=(37, 3))
    for rho in (0.01, 0.1, 0.5, 0.93, 1.0):
        (across,) = select_moderate_across([features], rho)
        np.testing.assert_array_equal(across.order, select_moderate(features, rho).order)


@pytest.mark.parametrize("fewest", [1, 2, 3, 5])
def test_a_single_class_with_a_short_window_gives_the_same_in_both_scopes(fewest: int) -> None:
    for n in range(1, 14):
        features = np.random.default_rng(n).normal(size=(n, 2))
        ranked = np.argsort(distance_to_center(features, "mean"), kind="stable")
        for rho in (1e-9, 0.05, 0.1, 0.2, 0.4, 1.0):
            window = list(range(round(n * (0.5 - rho / 2)), round(n * (0.5 + rho / 2))))
            if len(window) < min(fewest, n):  # by exhaustion: the ranks nearest the middle, the upper of two
                nearest = sorted(range(n), key=lambda rank: (abs(2 * rank - (n - 1)), -rank))
                window = sorted(nearest[: min(fewest, n)])
            (across,) = select_moderate_across([features], rho, min_per_class=fewest)
            np.testing.assert_array_equal(across.order, ranked[window])
            np.testing.assert_array_equal(select_moderate(features, rho, min_per_class=fewest).order, ranked[window])


def test_across_classes_against_a_slow_version_and_budgets_nest() -> None:
    rng = np.random.default_rng(2)
    classes = [rng.integers(0, 4, (n, 2)).astype(np.float64) * size for n, size in ((9, 1), (20, 3), (14, 0.5), (1, 1))]
    smaller: list[set[int]] = [set() for _ in classes]
    for rho in (0.05, 0.3, 0.6, 1.0):
        ranked = sorted(
            (float(np.linalg.norm(row - features.mean(axis=0))), c, i)
            for c, features in enumerate(classes)
            for i, row in enumerate(features)
        )
        n = len(ranked)
        window = ranked[round(n * (0.5 - rho / 2)) : round(n * (0.5 + rho / 2))]
        for c, selection in enumerate(select_moderate_across(classes, rho)):
            inside = [i for _, owner, i in window if owner == c]
            assert selection.order.tolist() == inside or (not inside and len(selection.order) == 1)
            assert smaller[c] <= set(selection.kept.tolist()) or len(smaller[c]) == 1
            smaller[c] = set(selection.kept.tolist())


def test_across_classes_checks_its_inputs() -> None:
    with pytest.raises(ValueError, match="rho: expected a share"):
        select_moderate_across([np.ones((2, 2))], 0.0)
    with pytest.raises(ValueError, match="center: expected 'mean' or 'median', found 'mode'"):
        select_moderate_across([np.ones((2, 2))], 0.5, center="mode")  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(ValueError, match="NaN or inf in 1 of 2 rows"):
        select_moderate_across([np.ones((2, 2)), np.array([[1.0], [np.nan]])], 0.5)
    assert select_moderate_across([], 0.5) == []


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16])
def test_a_large_class_is_measured_in_blocks_that_hold_less_than_its_features(dtype: type) -> None:
    values: Floats = (np.random.default_rng(3).standard_normal((20_001, 64)) * 50).astype(dtype)
    tracemalloc.start()
    try:
        chosen = select_moderate(values, 0.3)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # orders and distances of the rows, and one block: what grows with n d has to wait for pages from the system
    assert peak < 12 * 8 * len(values) < 8 * values.size / 4
    wide = values.astype(np.float64)
    distance = np.sqrt(np.square(wide - wide.mean(axis=0)).sum(axis=1))
    expected = np.argsort(distance, kind="stable")[round(20_001 * 0.35) : round(20_001 * 0.65)]
    np.testing.assert_array_equal(chosen.order, expected)


def test_one_value_that_is_not_finite_in_a_late_block_is_found() -> None:
    values = np.zeros((9_000, 64), np.float32)
    values[8_999, 63] = np.nan
    with pytest.raises(ValueError, match="NaN or inf in 1 of 9000 rows, the first is row 8999"):
        select_moderate(values, 0.5)
