"""Units that only coresets find, by hand and against loops."""

import numpy as np

from tasks.interpreters.coreset_units import coreset_units


def test_coresets_take_turns_and_units_of_no_class_come_first() -> None:
    reference = np.array([[1.0, 0, 0, 0, 0], [0, 0, 1.0, 0, 0]])
    small = np.array([[1.0, 0.2, 0.9, 0, 0], [0, 0, 0.5, 0, 0.3]])  # unit 2 is the other class's on the full data
    large = np.array([[1.0, 0.7, 0, 0, 0], [0.4, 0, 0, 0.1, 0]])
    found = coreset_units(reference, [small, large], 9)
    pairs = list(zip(found.classes.tolist(), found.units.tolist(), strict=True))
    assert pairs == [(1, 4), (0, 1), (1, 3), (0, 2), (1, 0)]
    np.testing.assert_array_equal(found.weights, [[0.3, 0], [0.2, 0.7], [0, 0.1], [0.9, 0], [0, 0.4]])
    assert found.elsewhere.tolist() == [False, False, False, True, True]
    few = coreset_units(reference, [small, large], 2)
    assert (few.units.tolist(), few.total) == ([4, 1], 5)


def test_every_pair_is_listed_once() -> None:
    rng = np.random.default_rng(0)
    reference, *coresets = rng.random((4, 5, 30)) * (rng.random((4, 5, 30)) < 0.2)
    found = coreset_units(reference, coresets, 10**6)
    expected = {
        (c, u) for c in range(5) for u in range(30) if reference[c, u] == 0 and any(w[c, u] > 0 for w in coresets)
    }
    pairs = list(zip(found.classes.tolist(), found.units.tolist(), strict=True))
    assert len(pairs) == found.total == len(expected)
    assert set(pairs) == expected
    for (c, u), weights, elsewhere in zip(pairs, found.weights, found.elsewhere, strict=True):
        assert weights.tolist() == [w[c, u] for w in coresets]
        assert elsewhere == any(reference[other, u] > 0 for other in range(5))


def test_nothing_is_found_where_the_full_data_finds_all() -> None:
    reference = np.ones((2, 3))
    for coresets in ([], [np.ones((2, 3))]):
        found = coreset_units(reference, coresets, 4)
        assert (found.total, found.units.shape, found.weights.shape) == (0, (0,), (0, len(coresets)))
