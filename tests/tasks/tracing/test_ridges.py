"""Ridge densities: loops, scipy's estimator, and the histogram against the exact form with its stated error."""

from math import exp, pi, sqrt

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import gaussian_kde

from tasks.tracing import RidgeHistogram, ridge_densities
from tasks.tracing.densities import Kind

Doubles = NDArray[np.float64]
GRID = np.linspace(-1.2, 1.2, 241)


def steps(spread: float = 0.3, seed: int = 0, n: int = 400) -> tuple[Doubles, Doubles, NDArray[np.int64]]:
    """Cosines around a mean per class, weights that differ widely, classes 0, 1, 3."""
    rng = np.random.default_rng(seed)
    classes = rng.choice([0, 1, 3], size=n)
    cosine = np.clip(rng.normal(0.2 * classes - 0.2, spread), -1, 1)
    return cosine, rng.gamma(0.5, size=n), classes


def slow(cosine: Doubles, weight: Doubles, grid: Doubles, width: float) -> Doubles:
    """The weighted mean of Gaussian kernels, term by term."""
    found = np.zeros(len(grid))
    for g, point in enumerate(grid.tolist()):
        for x, w in zip(cosine.tolist(), weight.tolist(), strict=True):
            found[g] += w * exp(-0.5 * ((point - x) / width) ** 2) / (width * sqrt(2 * pi))
    return np.asarray(found / weight.sum())


def test_absolute_against_a_loop() -> None:
    cosine, weight, classes = steps(n=60)
    found = ridge_densities(cosine, weight, classes, GRID[::20], bandwidth=0.07)
    assert found.shape == (4, 13)
    for label in (0, 1, 3):
        chosen = classes == label
        np.testing.assert_allclose(found[label], slow(cosine[chosen], weight[chosen], GRID[::20], 0.07), rtol=1e-12)
    assert (found[2] == 0).all()


@pytest.mark.parametrize("factor", [0.1, 0.5])
def test_scott_factor_is_scipys(factor: float) -> None:
    cosine, weight, classes = steps()
    found = ridge_densities(cosine, weight, classes, GRID, factor, "scott-factor")
    for label in (0, 1, 3):
        chosen = classes == label
        oracle = gaussian_kde(cosine[chosen], bw_method=factor, weights=weight[chosen])
        np.testing.assert_allclose(found[label], oracle(GRID), rtol=1e-9, atol=1e-12)


def test_one_step_by_hand() -> None:
    peak = 1 / (0.1 * sqrt(2 * pi))
    found = ridge_densities(np.array([0.5]), np.array([3.0]), np.array([1]), np.array([0.5, 0.6]))
    np.testing.assert_allclose(found, np.array([[0.0, 0.0], [peak, peak * exp(-0.5)]]))


def test_mass_lies_on_the_real_line_and_is_not_renormalised() -> None:
    wide, narrow = np.linspace(-3, 3, 6001), np.linspace(-1, 1, 2001)
    one = np.array([1.0]), np.array([1.0]), np.array([0])
    assert np.trapezoid(ridge_densities(*one, wide)[0], wide) == pytest.approx(1, abs=1e-12)
    assert np.trapezoid(ridge_densities(*one, narrow)[0], narrow) == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize("kind", ["absolute", "scott-factor"])
def test_weights_scale_freely_and_may_be_tiny(kind: Kind) -> None:
    cosine, weight, classes = steps()
    found = ridge_densities(cosine, weight * 1e-200, classes, GRID, kind=kind)
    np.testing.assert_allclose(found, ridge_densities(cosine, weight, classes, GRID, kind=kind), rtol=1e-9, atol=1e-12)


def test_rows_of_zeros() -> None:
    cosine = np.array([0.1, 0.4, 0.3, 0.3, 0.2, 0.5])
    weight = np.array([0.0, 0.0, 1.0, 2.0, 5.0, 0.0])
    classes = np.array([0, 0, 1, 1, 2, 2])
    absolute = ridge_densities(cosine, weight, classes, GRID)
    assert (absolute[0] == 0).all()  # no weight
    assert (absolute[1:].max(axis=1) > 0).all()
    scott = ridge_densities(cosine, weight, classes, GRID, kind="scott-factor")
    assert (scott == 0).all()  # no weight, one cosine, one step that weighs


@pytest.mark.parametrize(
    ("bandwidth", "kind", "error"), [(0.1, "absolute", 1e-8), (0.02, "absolute", 4e-6), (0.1, "scott-factor", 2e-4)]
)
@pytest.mark.parametrize("cuts", [[], [1, 100]])
def test_the_histogram_is_close(bandwidth: float, kind: Kind, error: float, cuts: list[int]) -> None:
    (one, heavy, classes), (other, light, _) = steps(0.05, 0), steps(0.05, 1)
    cosine, weight = np.stack([one, other]), np.stack([heavy, light])
    histogram = RidgeHistogram(2, 5)
    for start, stop in zip([0, *cuts], [*cuts, 400], strict=True):
        piece = RidgeHistogram(2, 5)
        piece.update(cosine[:, start:stop], weight[:, start:stop], classes[start:stop])
        histogram.merge(piece)
    found = histogram.densities(GRID, bandwidth, kind)
    for query in range(2):
        exact = ridge_densities(cosine[query], weight[query], classes, GRID, bandwidth, kind)
        for label, row in enumerate(exact):
            np.testing.assert_allclose(found[query, label], row, rtol=0, atol=error * row.max())
            np.testing.assert_allclose(histogram.totals[query, label], weight[query, classes == label].sum())
    assert (found[:, [2, 4]] == 0).all()


@pytest.mark.parametrize("kind", ["absolute", "scott-factor"])
def test_densities_of_some_classes_of_each_query(kind: Kind) -> None:
    rng = np.random.default_rng(5)
    cosine, weight, classes = rng.uniform(-1, 1, (3, 400)), rng.random((3, 400)), rng.integers(0, 4, 400)
    histogram, grid, shown = RidgeHistogram(3, 5), np.linspace(-1.2, 1.2, 31), np.array([[2, 0], [4, 3], [1, 1]])
    histogram.update(cosine, weight, classes)
    found = histogram.densities(grid, 0.2, kind, classes=shown)
    assert found.shape == (3, 2, 31)
    for query, labels in enumerate(shown):
        exact = np.concatenate([ridge_densities(cosine[query], weight[query], classes, grid, 0.2, kind), [[0] * 31]])
        np.testing.assert_allclose(found[query], exact[labels], atol=1e-6)  # class 4 does not have a step


def test_the_ends_of_the_range() -> None:
    cosine, weight, classes = np.array([-1.0, 1.0, 1 + 1e-7, -0.9999]), np.ones(4), np.zeros(4, np.int64)
    histogram = RidgeHistogram(1, 1)
    histogram.update(cosine[None], weight[None], classes)
    exact = ridge_densities(cosine, weight, classes, GRID)
    np.testing.assert_allclose(histogram.densities(GRID)[0], exact, atol=3e-6, rtol=0)


def test_histogram_zeros_and_steps_of_no_class() -> None:
    histogram = RidgeHistogram(1, 3)
    assert (histogram.densities(GRID) == 0).all()
    cosine, weight = np.array([[0.1, 0.3, 0.3, 0.9]]), np.array([[0.0, 1.0, 2.0, 7.0]])
    histogram.update(cosine[:, :2], weight[:, :2], np.array([0, 1]))
    histogram.update(cosine[:, 2:], weight[:, 2:], np.array([1, -1]))
    np.testing.assert_array_equal(histogram.totals, [[0, 3, 0]])
    assert (histogram.densities(GRID, kind="scott-factor") == 0).all()
    absolute = histogram.densities(GRID)[0]
    np.testing.assert_allclose(absolute[1], slow(np.array([0.3]), np.array([1.0]), GRID, 0.1), atol=1e-7)
    assert (absolute[[0, 2]] == 0).all()


def test_what_is_refused() -> None:
    cosine, weight, classes = steps(n=5)
    with pytest.raises(ValueError, match="kind: expected one of absolute, scott-factor, found 'scott'"):
        ridge_densities(cosine, weight, classes, GRID, kind="scott")  # type: ignore[arg-type]  # what is tested
    with pytest.raises(ValueError, match="bandwidth: expected a number above 0, found 0"):
        ridge_densities(cosine, weight, classes, GRID, bandwidth=0)
    with pytest.raises(ValueError, match="weight, classes: expected numbers of at least 0"):
        ridge_densities(cosine, -weight, classes, GRID)
    with pytest.raises(ValueError, match="weight, classes: expected numbers of at least 0"):
        ridge_densities(cosine, weight, classes - 5, GRID)
    with pytest.raises(ValueError, match=r"classes: expected shape \(5,\), found \(4,\)"):
        ridge_densities(cosine, weight, classes[:4], GRID)
    with pytest.raises(ValueError, match="T at least 1"):
        ridge_densities(cosine[:0], weight[:0], classes[:0], GRID)
    with pytest.raises(ValueError, match="cosine: expected finite values, found NaN"):
        ridge_densities(cosine * np.nan, weight, classes, GRID)
    histogram = RidgeHistogram(1, 2)
    with pytest.raises(ValueError, match=r"classes: expected -1\.\.1, found"):
        histogram.update(cosine[None], weight[None], classes + 2)
    with pytest.raises(ValueError, match=r"expected cosines within \[-1, 1\]"):
        histogram.update(cosine[None] + 2, weight[None], np.zeros(5, np.int64))
    with pytest.raises(ValueError, match=r"merge: expected shape \(1, 2, 2001\), found \(1, 3, 2001\)"):
        histogram.merge(RidgeHistogram(1, 3))
