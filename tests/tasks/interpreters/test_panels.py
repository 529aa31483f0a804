"""Panels of any size over chunks of any size give the whole product."""

import numpy as np
import pytest

from tasks.interpreters.panels import panel_sums


@pytest.mark.parametrize("rows", [1, 4, 11])
@pytest.mark.parametrize("size", [1, 5, 40])
def test_panels_are_rows_of_the_products(rows: int, size: int) -> None:
    rng = np.random.default_rng(0)
    x, labels = rng.random((40, 11)).astype(np.float32), np.eye(3)[rng.integers(0, 3, 40)]
    chunks = [(x[start : start + size], labels[start : start + size]) for start in range(0, 40, size)]
    wide = x.astype(np.float64)
    found = [panel_sums(chunks, slice(start, start + rows), 11, 3) for start in range(0, 11, rows)]
    np.testing.assert_allclose(np.concatenate([gram for gram, _ in found]), wide.T @ wide, rtol=1e-12)
    np.testing.assert_allclose(np.concatenate([moment for _, moment in found]), wide.T @ labels, rtol=1e-12)


def test_a_panel_without_samples_is_zero() -> None:
    gram, moment = panel_sums([], slice(2, 5), 4, 2)
    assert gram.shape == (2, 4)
    assert not gram.any()
    assert not moment.any()
