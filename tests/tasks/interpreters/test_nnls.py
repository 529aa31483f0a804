"""nmf_codes against scipy's row by row solver and by hand."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from sklearn import decomposition
from sklearn.exceptions import ConvergenceWarning

from tasks.interpreters import nnls as nnls_module
from tasks.interpreters import rows as rows_module
from tasks.interpreters.ice import fit_nmf, nmf_codes

Floats = NDArray[np.float64]
Make = Callable[[int, int, int], NDArray[np.float64]]


def near_duplicates(rng: np.random.Generator, r: int, d: int) -> Floats:
    """Return components that differ from their neighbour by a millionth."""
    base = rng.random((r, d))
    base[1::2] = base[: 2 * (r // 2) : 2] + 1e-6 * base[1::2]
    return base


def graded(rng: np.random.Generator, r: int, d: int) -> Floats:
    """Return components whose lengths span eight orders of magnitude."""
    return rng.random((r, d)) * np.logspace(-4, 4, r)[:, None]


def blurred(rng: np.random.Generator, r: int, d: int) -> Floats:
    """Return overlapping bumps, condition number above 1e8."""
    centre, x = np.linspace(0, 1, r)[:, None], np.linspace(0, 1, d)
    return np.exp(-((x - centre) ** 2) / 0.1) + 1e-9 * rng.random((r, d))


def degenerate(rng: np.random.Generator, r: int, d: int) -> Floats:
    """Return components with zero and with equal rows."""
    base = rng.random((r, d))
    base[0], base[2] = 0.0, base[1]
    return base


def signed(rng: np.random.Generator, r: int, d: int) -> Floats:
    """Return components of both signs."""
    return rng.standard_normal((r, d))


COMPONENTS = (near_duplicates, graded, blurred, degenerate, signed)


@pytest.mark.parametrize("make", COMPONENTS)
@pytest.mark.parametrize(("r", "d"), [(3, 5), (8, 20), (12, 12), (20, 9), (70, 80)])
def test_every_row_is_optimal(make: Callable[[np.random.Generator, int, int], Floats], r: int, d: int) -> None:
    rng = np.random.default_rng([r, d])
    components = make(rng, r, d)
    inside = rng.random((15, r)) * (rng.random((15, r)) < 0.4) @ np.abs(components) * 1e-2
    a = np.concatenate([np.maximum(rng.standard_normal((40, d)), 0), rng.random((25, d)), inside])
    codes = nmf_codes(a, components)
    assert codes.min() >= 0
    for row, code in zip(a, np.asarray(codes), strict=True):
        best = nnls(components.T, row, maxiter=10_000)[1]
        assert np.linalg.norm(row - code @ components) <= 1.005 * best + 1e-6 * np.linalg.norm(row)


def test_stragglers_of_the_exchange_are_solved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nnls_module, "EXCHANGES", 0)
    monkeypatch.setattr(nnls_module, "WARM_SWEEPS", 1)
    rng = np.random.default_rng(0)
    components = blurred(rng, 9, 30)
    a = np.maximum(rng.standard_normal((200, 30)), 0)
    codes = np.asarray(nmf_codes(a, components))
    for row, code in zip(a, codes, strict=True):
        assert np.linalg.norm(row - code @ components) <= 1.0001 * nnls(components.T, row)[1]


def test_by_hand() -> None:
    components = np.array([[1.0, 1.0], [0.0, 2.0]])
    a = np.array([[3.0, 7.0], [2.0, 0.0], [0.0, 0.0], [0.0, 6.0]])
    # row 2 wants a negative second code: alone, the first is the mean of its entries
    np.testing.assert_allclose(nmf_codes(a, components), [[3, 2], [1, 0], [0, 0], [0, 3]], atol=1e-12)


def test_zero_components_have_code_zero() -> None:
    codes = nmf_codes(np.ones((4, 3), dtype=np.float32), np.zeros((2, 3), dtype=np.float32))
    np.testing.assert_array_equal(codes, np.zeros((4, 2)))


def test_held_out_error_is_at_most_that_of_scikit_learn(structure: Make) -> None:
    a = structure(300, 20, 11)
    train, held_out = a[:200], a[200:]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        oracle = decomposition.NMF(5, random_state=0).fit(train)
        theirs = np.linalg.norm(held_out - oracle.transform(held_out) @ oracle.components_)
    same = np.linalg.norm(held_out - nmf_codes(held_out, oracle.components_) @ oracle.components_)
    assert same <= theirs * (1 + 1e-9)
    components = fit_nmf(train, 5).components
    ours = np.linalg.norm(held_out - nmf_codes(held_out, components) @ components)
    assert ours <= 1.01 * theirs + 1e-3 * np.linalg.norm(held_out)  # another optimum of the training rows


def test_codes_of_the_training_rows_are_not_worse_than_the_fit(structure: Make) -> None:
    a = structure(120, 16, 12)
    found = fit_nmf(a, 4)
    codes = nmf_codes(a, found.components)
    assert np.linalg.norm(a - codes @ found.components) <= found.relative_error * np.linalg.norm(a) * (1 + 1e-9)


@pytest.mark.parametrize("joined", [1, 20, 1000])
def test_result_does_not_depend_on_chunks(structure: Make, monkeypatch: pytest.MonkeyPatch, joined: int) -> None:
    a, components = structure(103, 12, 13), structure(6, 12, 14) + 1e-3
    whole = nmf_codes(a, components)
    monkeypatch.setitem(rows_module.CHUNK_BYTES, "cpu", 7 * 12 * 8)
    monkeypatch.setattr(nnls_module, "SOLVE_BYTES", 3 * 8 * 36)
    monkeypatch.setattr(nnls_module, "JOINED_ROWS", joined)
    np.testing.assert_allclose(nmf_codes(a, components), whole, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_torch_and_numpy_agree(dtype: type[np.floating[Any]]) -> None:
    rng = np.random.default_rng(15)
    a, components = rng.random((60, 8)).astype(dtype), rng.random((3, 8)).astype(dtype)
    array, tensor = nmf_codes(a, components), nmf_codes(torch.from_numpy(a), torch.from_numpy(components))
    assert isinstance(array, np.ndarray)
    assert isinstance(tensor, torch.Tensor)
    assert array.dtype == (np.float64 if dtype is np.float64 else np.float32)
    np.testing.assert_array_equal(array, tensor.numpy())
    best = [nnls(components.T.astype(float), row.astype(float))[0] for row in a]
    np.testing.assert_allclose(array, best, atol=1e-5)


def test_rows_with_any_number_of_components_are_solved_together() -> None:
    """Row i has i of the components, from none to all, in two sets of each size; some rows share a set."""
    rng = np.random.default_rng(16)
    components, r = rng.random((9, 30)), 9
    codes = np.zeros((60, r))
    for row, code in enumerate(codes):
        code[rng.permutation(r)[: row % (r + 1)]] = 1 + rng.random(row % (r + 1))
    codes[50:] = 2 * codes[40:50]
    np.testing.assert_allclose(nmf_codes(codes @ components, components), codes, atol=1e-9)


def test_no_rows() -> None:
    assert nmf_codes(np.zeros((0, 4)), np.ones((2, 4))).shape == (0, 2)


def test_errors_are_named() -> None:
    a = np.ones((3, 4))
    with pytest.raises(ValueError, match=r"components: expected shape \(r, 4\), as `a` has 4 columns, found \(r, 5\)"):
        nmf_codes(a, np.ones((2, 5)))
    with pytest.raises(ValueError, match="found nan at row 1, column 0"):
        nmf_codes(np.array([[1.0], [np.nan]]), np.ones((1, 1)))
    with pytest.raises(ValueError, match="found inf at row 0, column 3"):
        nmf_codes(a, np.array([[1.0, 1.0, 1.0, np.inf]]))
    with pytest.raises(ValueError, match="expected a matrix"):
        nmf_codes(a, np.ones(4))
    with pytest.raises(ValueError, match=r"components: expected at least one, shape \(r, 4\), found \(0, 4\)"):
        nmf_codes(a, np.zeros((0, 4)))
    with pytest.raises(ValueError, match=r"codes: expected values up to 1.8e\+308, the largest torch.float64"):
        nmf_codes(1e300 * a, 1e-300 * np.eye(4))


@pytest.mark.parametrize(("scale", "of_components"), [(1e-312, 1e-312), (1e300, 1e300), (1e-300, 1.0)])
def test_the_ends_of_the_range_are_read(scale: float, of_components: float) -> None:
    rng = np.random.default_rng(16)
    a, components = rng.random((20, 6)), rng.random((3, 6))
    codes = np.asarray(nmf_codes(a * scale, components * of_components)) * (of_components / scale)
    np.testing.assert_allclose(codes, nmf_codes(a, components), atol=1e-10)
