"""The images with the largest values of each feature, against sorted lists; regions of maps by hand."""

import numpy as np
import pytest

from tasks.decomposition.most_activating import MostActivating, active_box, features_in_use


@pytest.mark.parametrize("chunk", [1, 2, 7, 40])
@pytest.mark.parametrize("count", [1, 4, 40])
def test_running_largest_values_are_those_of_a_sorted_list_with_many_ties(chunk: int, count: int) -> None:
    values = np.random.default_rng(3).integers(-2, 3, (40, 6)).astype(np.float32)  # five values: ties everywhere
    values[:, 5] = 0  # a feature that never varies
    found = MostActivating.empty(6, count)
    for start in range(0, 40, chunk):
        found.update(start, values[start : start + chunk])
    for feature in range(6):
        expected = sorted(range(40), key=lambda i: (-values[i, feature], i))[:count]
        assert found.positions[feature].tolist() == expected
        assert found.values[feature].tolist() == [values[i, feature] for i in expected]


def test_fewer_images_than_asked_for_leave_places_open() -> None:
    found = MostActivating.empty(1, 3)
    found.update(0, np.array([[1.0], [2.0]], np.float32))
    assert found.positions.tolist() == [[1, 0, -1]]
    assert found.values.tolist() == [[2.0, 1.0, -np.inf]]


def test_features_of_a_block_come_by_rank_and_before_those_of_later_classes() -> None:
    sets = np.array([[5, 1], [5, 2], [9, 1], [0, 5]])
    assert features_in_use(sets, 2).tolist() == [5, 1, 2, 9, 0]
    assert features_in_use(sets, 4).tolist() == [5, 9, 0, 1, 2]
    assert features_in_use(sets[:0], 4).tolist() == []


def test_the_box_is_around_the_region_of_the_peak_alone() -> None:
    values = np.zeros((5, 6))
    values[1, 1:3], values[2, 2] = (5, 10), 6  # an L: its corner at (1, 2) is the peak
    values[4, 5] = 9  # apart, and only touched by a corner at (3, 4)
    values[3, 4] = 4.9  # below half of the peak
    assert active_box(values) == (1, 1, 3, 3)
    assert active_box(-values - 3) == (0, 0, 5, 6)  # the background is the peak: it surrounds the rest
    assert active_box(values[:1]) == (0, 0, 1, 6)  # a flat map
    assert active_box(np.array([[2.0]])) == (0, 0, 1, 1)


def test_of_two_equal_peaks_the_first_counts_and_edges_join_corners_do_not() -> None:
    assert active_box(np.array([[0.0, 4.0, 0.0], [4.0, 0.0, 0.0]])) == (0, 1, 1, 2)
