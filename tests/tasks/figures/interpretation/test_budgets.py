"""Lines, bands and references of the figures."""

import numpy as np
import pandas as pd

from tasks.figures.interpretation.budgets import Series, pairs, reference, selector_series

TABLE = pd.DataFrame(
    {
        "selector": ["random", "random", "moderate", "moderate"],
        "budget": [0.5, 0.1, 0.1, 0.5],
        "phi_0_mean": [0.2, 0.8, 0.7, np.nan],
        "phi_0_std": [0.02, 0.05, np.nan, np.nan],
        "null_0_mean": [1.3, 1.1, 1.2, np.nan],
    }
)


def test_lines_are_sorted_by_budget_and_keep_the_order_of_selectors() -> None:
    random, moderate = selector_series(TABLE, "phi_0")
    assert (random.name, moderate.name) == ("random", "moderate")
    np.testing.assert_array_equal(random.budget, [0.1, 0.5])
    np.testing.assert_array_equal(random.mean, [0.8, 0.2])
    np.testing.assert_array_equal(moderate.mean, [0.7, np.nan])


def test_an_absent_column_is_unknown() -> None:
    (line,) = selector_series(TABLE[:2], "accuracy")
    assert np.isnan(line.mean).all()
    assert np.isnan(line.std).all()
    assert len(reference(TABLE, "accuracy_plain")[0]) == 0


def test_band_is_mean_plus_minus_std_at_known_points() -> None:
    x = np.array([0.1, 0.2, 0.3])
    budget, low, high = Series("random", x, np.array([0.8, np.nan, 0.5]), np.array([0.1, 0.1, 0.0])).band()
    np.testing.assert_array_equal(budget, [0.1, 0.3])
    np.testing.assert_allclose(low, [0.7, 0.5])
    np.testing.assert_allclose(high, [0.9, 0.5])


def test_no_band_without_spread() -> None:
    x = np.array([0.1, 0.2])
    assert len(Series("moderate", x, x, np.zeros(2)).band()[0]) == 0
    assert len(Series("moderate", x, x, np.full(2, np.nan)).band()[0]) == 0


def test_reference_averages_over_selectors() -> None:
    budget, value = reference(TABLE, "null_0")
    np.testing.assert_array_equal(budget, [0.1, 0.5])
    np.testing.assert_allclose(value, [1.15, 1.3])


def test_pairs_of_network_and_interpreter_keep_their_order() -> None:
    table = TABLE.assign(network=["b", "a", "b", "a"], interpreter="ice")
    assert [(network, interpreter, len(rows)) for network, interpreter, rows in pairs(table)] == [
        ("b", "ice", 2),
        ("a", "ice", 2),
    ]
