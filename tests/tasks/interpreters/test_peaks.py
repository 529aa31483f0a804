"""The images on which features respond most, the boxes around the peaks, and how often features are active."""

import numpy as np
import pytest

from tasks.interpreters.peaks import TopMaps, active_share, peak_box


def test_a_single_position_is_the_box() -> None:
    values = np.zeros((4, 8))
    values[1, 6] = 3.0
    assert peak_box(values) == (0.25, 0.75, 0.5, 0.875)


def test_the_box_is_the_region_around_the_peak_with_at_least_half_of_it() -> None:
    values = np.array([[0.0, 2.0, 0.0, 0.0], [0.0, 4.0, 2.0, 0.0], [1.9, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 3.0]])
    assert peak_box(values) == (0.0, 0.25, 0.5, 0.75)  # 3 does not touch the peak, 1.9 is less than half


def test_positions_that_touch_at_a_corner_only_do_not_belong_together() -> None:
    assert peak_box(np.array([[4.0, 0.0], [0.0, 4.0]])) == (0.0, 0.0, 0.5, 0.5)  # the first of equal peaks


def test_a_map_of_one_position_is_the_whole_image() -> None:
    assert peak_box(np.array([[0.5]])) == (0.0, 0.0, 1.0, 1.0)


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 20])
def test_top_images_are_those_of_a_sort_whatever_the_chunks(chunk: int) -> None:
    rng = np.random.default_rng(0)
    responses = rng.integers(0, 4, (20, 2, 3, 5)).astype(np.float32)  # with many ties
    responses[..., 4] = 0
    responses[3:, ..., 2] = 0
    at, top = np.arange(100, 120), TopMaps(4)
    largest = [top.update(responses[i : i + chunk], at[i : i + chunk]) for i in range(0, 20, chunk)]
    np.testing.assert_array_equal(np.concatenate(largest), responses.max(axis=(1, 2)))
    position, value, box = top.result()
    for feature in range(5):
        peaks = [responses[image, ..., feature].max() for image in range(20)]
        order = sorted((image for image in range(20) if peaks[image] > 0), key=lambda image: (-peaks[image], image))[:4]
        n = len(order)
        np.testing.assert_array_equal(position[feature], [*(100 + np.array(order, int)), *[-1] * (4 - n)])
        np.testing.assert_array_equal(value[feature], [*(peaks[i] for i in order), *[np.nan] * (4 - n)])
        np.testing.assert_array_equal(
            box[feature, :n], [peak_box(responses[i, ..., feature]) for i in order] or box[:0, 0]
        )
        assert np.isnan(box[feature, n:]).all()


def test_fewer_images_than_asked() -> None:
    top = TopMaps(4)
    top.update(np.array([1.0, 2.0]).reshape(2, 1, 1, 1), np.array([5, 9]))
    position, value, _ = top.result()
    np.testing.assert_array_equal(position, [[9, 5, -1, -1]])
    np.testing.assert_array_equal(value, [[2, 1, np.nan, np.nan]])


def test_active_share_by_hand() -> None:
    largest = np.array([[4.0, 0.0], [2.0, 0.0], [1.9, 0.0], [0.0, 0.0]])
    np.testing.assert_array_equal(active_share(largest), [0.5, 0.0])
