"""Interpretable neurons, tau, categories: by hand."""

import numpy as np
import pytest

from tasks.concepts.categories import primary_categories
from tasks.concepts.interpretable import best_words, calibrated_tau, interpretable, tau_curve, top_words

SIMILARITY = np.array([[0.1, 0.5, 0.5], [0.0, 0.0, 0.0], [-0.3, -0.1, -0.2], [0.7, 0.2, 0.6]])
DEAD = np.array([False, True, False, False])


def test_best_and_top_words_take_the_lower_of_equal_ones() -> None:
    best = best_words(SIMILARITY)
    np.testing.assert_array_equal(best.word, [1, 0, 1, 0])
    np.testing.assert_array_equal(best.similarity, [0.5, 0.0, -0.1, 0.7])
    np.testing.assert_array_equal(top_words(SIMILARITY, 2), [[1, 2], [0, 1], [1, 2], [0, 2]])


def test_dead_neurons_are_never_interpretable() -> None:
    np.testing.assert_array_equal(interpretable(SIMILARITY, 0.4, DEAD), [True, False, False, True])
    np.testing.assert_array_equal(interpretable(SIMILARITY, -1.0, DEAD), [True, False, True, True])
    np.testing.assert_array_equal(interpretable(SIMILARITY, 0.5, DEAD), [False, False, False, True])  # above, not at


def test_the_tau_curve_counts_as_each_tau_alone() -> None:
    taus = [-1.0, -0.1, 0.0, 0.4, 0.5, 0.7, 2.0]
    best = best_words(SIMILARITY).similarity
    expected = [int(interpretable(SIMILARITY, tau, DEAD).sum()) for tau in taus]
    np.testing.assert_array_equal(tau_curve(best, taus, DEAD), expected)
    np.testing.assert_array_equal(tau_curve(best[~DEAD], taus), expected)
    assert expected == [3, 2, 2, 2, 1, 0, 0]


def test_calibration_is_the_quantile_of_the_null() -> None:
    null = np.linspace(0, 1, 101)
    assert calibrated_tau(null) == pytest.approx(0.99)
    assert (null > calibrated_tau(null)).sum() == 1
    with pytest.raises(ValueError, match=r"calibration: expected neurons and a share 0 to 1, found 0 and 0.99"):
        calibrated_tau(np.array([]))


def test_a_word_has_the_category_of_its_most_covered_number() -> None:
    names = ["", "water", "sky", "Water", "red"]
    categories = np.array([-1, 0, 0, 1, 2])
    words = ["sky", "WATER", "red", "chair", ""]
    for coverage, expected in (([0, 5, 1, 9, 1], 1), ([0, 9, 1, 5, 1], 0), ([7, 5, 1, 5, 1], 0)):
        result = primary_categories(words, names, categories, np.array(coverage, dtype=float))
        np.testing.assert_array_equal(result, [0, expected, 2, -1, -1])
    with pytest.raises(ValueError, match="expected one per label number, found 5, 5 and 4"):
        primary_categories(words, names, categories, np.zeros(4))


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"similarity: expected finite values \(K, S\)"):
        best_words(np.full((2, 2), np.nan))
    with pytest.raises(ValueError, match=r"dead: expected \(4,\) bool, found int64 \(4,\)"):
        interpretable(SIMILARITY, 0.1, DEAD.astype(np.int64))
