"""Contrast maps: what influential maps see that the others do not."""

import numpy as np
import pytest

from tasks.decomposition import contrast_maps, least_frequent, pick_sets


def test_worked_by_hand() -> None:
    maps = np.zeros((1, 2, 4), dtype=np.float16)
    maps[0, 0], maps[0, 1] = [8, 4, 0, 0], [1, 1, 1, 5]
    found = contrast_maps(maps, np.array([0, 1]), np.array([3, 2]))
    np.testing.assert_array_equal(found.all, [[3, 2]])
    np.testing.assert_array_equal(found.influential, [[3, -1]])
    np.testing.assert_array_equal(found.other, [[-3, 1]])
    assert {one.dtype for one in found} == {np.dtype(np.float64)}


def test_a_planted_object_shows_in_the_influential_maps() -> None:
    rng = np.random.default_rng(0)
    maps = rng.random((7, 7, 30)).astype(np.float32)
    before = maps.copy()
    maps[2:4, 5, :5] += 10
    planted = maps.copy()
    found = contrast_maps(maps, np.arange(5), np.arange(5, 10))
    seen = np.zeros((7, 7), dtype=bool)
    seen[2:4, 5] = True
    assert found.influential[seen].min() > 5 > 1 > found.influential[~seen].max()
    assert found.other[seen].max() < 0
    np.testing.assert_array_equal(maps, planted)
    same = contrast_maps(before, np.arange(30), np.arange(30)[::-1])  # all maps minus all maps
    np.testing.assert_allclose(same.influential, 0, atol=1e-15)
    np.testing.assert_allclose(same.other, 0, atol=1e-15)


def test_the_least_frequent_are_the_end_of_the_ranking() -> None:
    counts = np.array([[3, 0, 5, 0, 1]])
    ranking, _ = pick_sets(counts, np.array([[1.0, 2.0, 1.0, 1.0, 1.0]]), 5)
    np.testing.assert_array_equal(least_frequent(ranking, 2), [[3, 1]])
    with pytest.raises(ValueError, match=r"k: expected 1\.\.5, found 6"):
        least_frequent(ranking, 6)


def test_what_is_no_map_is_refused() -> None:
    own = np.array([0])
    with pytest.raises(ValueError, match=r"maps: expected shape \(h, w, d\), found \(2, 3\)"):
        contrast_maps(np.zeros((2, 3)), own, own)
    with pytest.raises(ValueError, match="maps: expected finite values, found NaN or inf"):
        contrast_maps(np.full((2, 2, 3), np.nan), own, own)
    with pytest.raises(ValueError, match=r"indices: expected 0\.\.2, found 3 at class 0"):
        contrast_maps(np.zeros((2, 2, 3)), own, np.array([3]))
