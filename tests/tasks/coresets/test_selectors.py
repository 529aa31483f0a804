"""What every coreset selector promises, over the whole dictionary."""

from itertools import pairwise

import numpy as np
import pytest

from tasks.coresets import BLIND, DRAWN, SELECTORS
from tasks.coresets.selection import Floats

BUDGETS = (0.001, 0.1, 1 / 3, 0.5, 0.95, 1.0)


@pytest.fixture(params=sorted(SELECTORS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def features() -> Floats:
    return np.random.default_rng(7).normal(size=(37, 5)).astype(np.float32)


@pytest.mark.parametrize("rho", BUDGETS)
def test_kept_is_sorted_unique_and_the_same_set_as_order(name: str, features: Floats, rho: float) -> None:
    selection = SELECTORS[name](features, rho, seed=3)
    assert selection.kept.dtype == selection.order.dtype == np.int64
    assert (np.diff(selection.kept) > 0).all()
    assert 0 <= selection.kept[0] <= selection.kept[-1] < len(features)
    np.testing.assert_array_equal(np.sort(selection.order), selection.kept)
    assert abs(len(selection.kept) - rho * len(features)) <= 2


@pytest.mark.parametrize("n", [1, 2, 3, 10, 37])
def test_the_whole_budget_keeps_all(name: str, features: Floats, n: int) -> None:
    np.testing.assert_array_equal(SELECTORS[name](features[:n], 1.0).kept, np.arange(n))
    np.testing.assert_array_equal(SELECTORS[name](features[:n], np.float64(1.0)).kept, np.arange(n))


@pytest.mark.parametrize("rho", BUDGETS)
def test_a_class_of_one_sample_keeps_it(name: str, rho: float) -> None:
    np.testing.assert_array_equal(SELECTORS[name](np.array([[2.0, -1.0]]), rho).kept, [0])


def test_same_seed_same_result_and_inputs_stay(name: str, features: Floats) -> None:
    before = features.copy()
    features.setflags(write=False)
    first, second = (SELECTORS[name](features, 0.4, seed=[5, 2]) for _ in range(2))
    np.testing.assert_array_equal(first.order, second.order)
    assert first.info == second.info
    np.testing.assert_array_equal(features, before)


def test_only_drawn_selectors_read_the_seed(name: str, features: Floats) -> None:
    kept = {tuple(SELECTORS[name](features, 0.4, seed=seed).kept.tolist()) for seed in range(5)}
    assert (len(kept) > 1) == (name in DRAWN)


def test_a_larger_budget_holds_the_smaller(name: str, features: Floats) -> None:
    kept = [set(SELECTORS[name](features, rho, seed=1).kept.tolist()) for rho in np.linspace(0.01, 1, 100)]
    assert all(small <= large for small, large in pairwise(kept))


def test_equal_samples_are_no_obstacle(name: str) -> None:
    assert 4 <= len(SELECTORS[name](np.ones((10, 3), dtype=np.float16), 0.5).kept) <= 6


@pytest.mark.parametrize("rho", [0.0, -0.1, 1.0001, float("nan"), float("inf")])
def test_budgets_out_of_range_are_refused(name: str, features: Floats, rho: float) -> None:
    with pytest.raises(ValueError, match=r"rho: expected a share with 0 < rho <= 1, found"):
        SELECTORS[name](features, rho)


@pytest.mark.parametrize("rho", ["0.5", True, None, [0.5, 0.5]])
def test_budgets_of_other_kinds_are_refused(name: str, features: Floats, rho: float) -> None:
    with pytest.raises(TypeError, match="rho: expected a number, found"):
        SELECTORS[name](features, rho)


def test_squares_beyond_float64_are_refused(name: str, features: Floats) -> None:
    wide = features.astype(np.float64) * 1e300  # numpy would warn, and all distances would be infinite
    if name in BLIND:
        assert len(SELECTORS[name](wide, 0.5).kept) == round(0.5 * len(wide))
        return
    with pytest.raises(ValueError, match=r"features: expected numbers with squares in float64, found up to .*e\+300"):
        SELECTORS[name](wide, 0.5)


@pytest.mark.parametrize("shape", [(5,), (0, 3), (3, 0), (2, 3, 1)])
def test_wrong_shapes_are_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"features: expected shape \(n, d\)"):
        SELECTORS[name](np.zeros(shape), 0.5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_by_row(name: str, features: Floats, value: float) -> None:
    features[[11, 20], 2] = value
    with pytest.raises(ValueError, match="NaN or inf in 2 of 37 rows, the first is row 11"):
        SELECTORS[name](features, 0.5)


def test_other_kinds_of_arrays_are_refused(name: str, features: Floats) -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="expected a NumPy array"):
        SELECTORS[name](torch.from_numpy(features), 0.5)
    with pytest.raises(TypeError, match=r"expected a NumPy array .* found MaskedArray"):  # its mask would be ignored
        SELECTORS[name](np.ma.masked_array(features, features > 0), 0.5)
    with pytest.raises(TypeError, match="expected real numbers, found dtype complex128"):
        SELECTORS[name](features.astype(complex), 0.5)


def test_unknown_parameters_are_refused(name: str, features: Floats) -> None:
    with pytest.raises(TypeError, match="no_such_parameter"):
        SELECTORS[name](features, 0.5, no_such_parameter=1)  # type: ignore[call-arg]  # the point of the test
