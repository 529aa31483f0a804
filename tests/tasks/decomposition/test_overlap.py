"""How many features the classes have in common."""

import math

import numpy as np
import pytest

from tasks.decomposition import measure_overlap, membership


def test_worked_by_hand() -> None:
    overlap = measure_overlap(np.array([[0, 1], [1, 2], [4, 5]]), 7)
    np.testing.assert_array_equal(overlap.matrix, [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]])
    assert overlap.mean == 1 / 6
    assert overlap.union == 5
    np.testing.assert_array_equal(overlap.classes, [1, 2, 1, 0, 1, 1, 0])


def test_it_is_what_sets_say() -> None:
    rng = np.random.default_rng(0)
    indices = np.argsort(rng.random((12, 30)), axis=1)[:, :7]
    overlap = measure_overlap(indices, 30)
    sets = [set(row.tolist()) for row in indices]
    expected = np.array([[len(a & b) / 7 for b in sets] for a in sets])
    np.testing.assert_allclose(overlap.matrix, expected, rtol=1e-15)
    np.testing.assert_allclose(overlap.mean, expected[~np.eye(12, dtype=bool)].mean(), rtol=1e-14)
    assert overlap.union == len(set.union(*sets))
    np.testing.assert_array_equal(overlap.classes, [sum(j in one for one in sets) for j in range(30)])
    np.testing.assert_array_equal(membership(indices, 30), [[j in one for j in range(30)] for one in sets])


def test_one_class_and_all_features() -> None:
    single = measure_overlap(np.array([[2, 0]]), 3)
    assert math.isnan(single.mean)
    assert (single.matrix.tolist(), single.union) == ([[1.0]], 2)
    full = measure_overlap(np.tile(np.arange(4), (3, 1)), 4)
    assert (full.mean, full.union) == (1.0, 4)


def test_features_that_stand_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="indices: expected distinct features, found 1 twice at class 1"):
        measure_overlap(np.array([[0, 1], [1, 1]]), 3)
