"""Exact thresholds from chunks: NumPy's linear quantile of the whole."""

import numpy as np
import pytest

from tasks.detectors.thresholds import TopValues


@pytest.mark.parametrize("quantile", [0.0, 0.001, 0.005, 0.05, 0.37, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_chunks_in_any_order_give_numpys_quantile(quantile: float, dtype: type[np.floating]) -> None:
    values = np.random.default_rng(0).normal(size=(37, 3, 4, 5)).astype(dtype)
    values[:, 1] = np.round(values[:, 1])  # ties
    values[:, 2] = 0.1
    n_values = 37 * 20
    parts = [TopValues(n_values, quantile) for _ in range(3)]
    for which, rows in ((0, slice(20, 37)), (1, slice(0, 2)), (2, slice(2, 3)), (0, slice(3, 20))):
        parts[which].update(values[rows])
    stored = [TopValues.of(part.state(), n_values, quantile, part.seen) for part in parts]
    result = stored[1].merge(stored[0]).merge(stored[2])
    whole = np.moveaxis(values, 1, 0).reshape(3, -1).astype(np.float64)
    np.testing.assert_array_equal(result.threshold(), np.quantile(whole, 1 - quantile, axis=1))
    assert result.state().shape == (3, result.n_held)
    assert result.n_held <= quantile * n_values + 2


def test_a_few_values_are_stored_with_infinities_before_them() -> None:
    top = TopValues(100, 0.1).update(np.array([[3.0], [1.0]]))
    np.testing.assert_array_equal(top.state(), [[-np.inf] * (top.n_held - 2) + [1.0, 3.0]])
    assert top.seen == 2


def test_bad_input_is_named() -> None:
    top = TopValues(4, 0.5).update(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="threshold: expected all 4 values of each unit, found 3"):
        top.threshold()
    with pytest.raises(ValueError, match="values: expected 4 of each unit in all, found 5"):
        top.update(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="values: expected 2 units, found 3"):
        top.update(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="values: expected finite values, found NaN or inf in 1 of 1 images"):
        top.update(np.array([[0.0, np.nan]]))
    with pytest.raises(ValueError, match=r"merge: expected 4 values and quantile 0.5, found 4 and 0.25"):
        top.merge(TopValues(4, 0.25))
    with pytest.raises(ValueError, match=r"quantile: expected a share 0 to 1, found -0.1"):
        TopValues(4, -0.1)
    with pytest.raises(ValueError, match="n_values: expected an integer of at least 1, found 0"):
        TopValues(0, 0.1)
    with pytest.raises(ValueError, match="threshold: expected values, found none"):
        TopValues(4, 0.1).state()
    with pytest.raises(ValueError, match=r"state: expected shape \(K, 3\), found \(2, 2\) after 2 values"):
        TopValues.of(np.zeros((2, 2)), 4, 0.5, 2)
