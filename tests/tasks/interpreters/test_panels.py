"""Panels of any size over chunks of any size give the whole product."""

import tracemalloc

import numpy as np
import pytest

from tasks.interpreters import panels
from tasks.interpreters.panels import panel_sums, whole_gram


@pytest.mark.parametrize("block", [2, 256])
@pytest.mark.parametrize("rows", [1, 4, 11])
@pytest.mark.parametrize("size", [1, 5, 40])
def test_panels_are_rows_of_the_products(rows: int, size: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(panels, "BLOCK", block)
    rng = np.random.default_rng(0)
    x, labels = rng.random((40, 11)).astype(np.float32), rng.integers(-1, 3, 40)
    chunks = [(x[start : start + size], labels[start : start + size]) for start in range(0, 40, size)]
    wide = x.astype(np.float64)
    found = [panel_sums(chunks, slice(start, start + rows), 11, 3) for start in range(0, 11, rows)]
    for start, (gram, _) in zip(range(0, 11, rows), found, strict=True):
        assert not gram[:, :start].any()  # the panels before have these products
        np.testing.assert_allclose(gram[:, start:], (wide.T @ wide)[start : start + rows, start:], rtol=1e-12)
    whole = whole_gram([gram for gram, _ in found], 11)
    np.testing.assert_allclose(whole, wide.T @ wide, rtol=1e-12)
    np.testing.assert_array_equal(whole, whole.T)
    np.testing.assert_allclose(
        np.concatenate([moment for _, moment in found]), wide.T @ (labels[:, None] == np.arange(3)), rtol=1e-12
    )


def test_a_panel_without_samples_is_zero() -> None:
    gram, moment = panel_sums([], slice(2, 5), 4, 2)
    assert gram.shape == (2, 4)
    assert not gram.any()
    assert not moment.any()


def test_memory_of_a_panel_is_that_of_the_panel_however_many_samples() -> None:
    units, classes, rows, size = 600, 5, 100, 16

    def peak(samples: int) -> int:
        chunks = ((np.full((size, units), 0.5, np.float32), np.arange(size) % classes) for _ in range(samples // size))
        tracemalloc.start()
        panel_sums(chunks, slice(0, rows), units, classes)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    few, many = peak(2 * size), peak(100 * size)
    assert many <= few * 1.02
    panel, chunk = 8 * rows * (units + classes), 8 * size * units
    assert many <= 2 * panel + 4 * chunk  # far below the matrix itself, 2.9 MB
    assert 2 * panel + 4 * chunk < 8 * units**2 / 2
