"""Angles between directions, and features matched one by one."""

import itertools

import numpy as np

from tasks.interpreters.nearest import angles, match


def test_angles_by_hand() -> None:
    one = np.array([[1.0, 0.0], [2.0, 2.0], [0.0, 0.0]])
    other = np.array([[3.0, 0.0], [0.0, 0.5], [-1.0, 0.0], [-1.0, np.sqrt(3)]])
    expected = np.array([[0, 90, 180, 120], [45, 45, 135, 75], [np.nan] * 4])
    np.testing.assert_allclose(angles(one, other), expected, atol=1e-12)


def test_small_angles_keep_their_digits() -> None:
    tiny = 1e-9
    found = angles(np.array([[1.0, 0.0]]), np.array([[np.cos(tiny), np.sin(tiny)], [-1.0, tiny]]))
    np.testing.assert_allclose(found, np.degrees([[tiny, np.pi - tiny]]), rtol=1e-7)


def test_each_direction_has_a_partner_of_its_own() -> None:
    degrees = np.radians([0, 10])
    one = np.stack([np.cos(degrees), np.sin(degrees)], axis=1)
    degrees = np.radians([8, 40])
    other = np.stack([np.cos(degrees), np.sin(degrees)], axis=1)
    partner, angle = match(one, other)  # 8 + 30 is less than 40 + 2, although 10 is nearest to 8
    np.testing.assert_array_equal(partner, [0, 1])
    np.testing.assert_allclose(angle, [8, 30])


def test_the_sum_of_angles_is_the_smallest_of_all_matchings() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.random((4, 3)), rng.random((6, 3))
    between = np.degrees([[np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for b in other] for a in one])
    best = min(itertools.permutations(range(6), 4), key=lambda order: sum(between[i, j] for i, j in enumerate(order)))
    partner, angle = match(one, other)
    np.testing.assert_array_equal(partner, best)
    np.testing.assert_allclose(angle, [between[i, j] for i, j in enumerate(best)], rtol=1e-9)
    back, same = match(other, one)
    np.testing.assert_array_equal(np.flatnonzero(back >= 0), np.sort(best))
    np.testing.assert_allclose(same[np.array(best)], angle, rtol=1e-9)


def test_features_left_over_and_those_of_length_0_have_no_partner() -> None:
    partner, angle = match(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), np.array([[0.0, 0.0], [1.0, 1.0]]))
    assert partner[0] == -1
    assert sorted(partner[1:].tolist()) == [-1, 1]
    np.testing.assert_allclose(np.sort(angle), [45, np.nan, np.nan])


def test_order_and_length_do_not_matter() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.random((5, 4)), rng.random((5, 4))
    partner, angle = match(one, other)
    order = rng.permutation(5)
    again, angle_again = match(one * 7, other[order] * rng.random((5, 1)))
    np.testing.assert_array_equal(order[again], partner)
    np.testing.assert_allclose(angle_again, angle, rtol=1e-9)
