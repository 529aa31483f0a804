"""fit_nmf against scikit-learn, planted factors and cases by hand."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn import decomposition
from sklearn.exceptions import ConvergenceWarning

from tasks.interpreters import rows as rows_module
from tasks.interpreters.ice import fit_nmf

Array = NDArray[Any]  # Any: floats of every width
Make = Callable[[int, int, int], NDArray[np.float64]]


def oracle_error(a: Array, rank: int) -> float:
    """Return the relative error of scikit-learn's NMF with its defaults."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = decomposition.NMF(rank, random_state=0).fit(a)
    return float(fitted.reconstruction_err_ / np.linalg.norm(a.astype(np.float64)))


def direct_error(a: Array, codes: Array, components: Array) -> float:
    """Return the relative error in float64, all at once."""
    wide = a.astype(np.float64)
    model = codes.astype(np.float64) @ components.astype(np.float64)
    return float(np.linalg.norm(wide - model) / np.linalg.norm(wide))


@pytest.mark.parametrize("rank", [1, 3, 9])
def test_error_is_at_most_that_of_scikit_learn_on_small_input(structure: Make, rank: int) -> None:
    for seed, (n, d) in enumerate([(40, 12), (150, 25), (11, 40)]):
        a = structure(n, d, seed)
        found = fit_nmf(a, rank)
        assert found.relative_error <= 1.01 * oracle_error(a, rank), (seed, n, d)
        assert found.components.shape == (rank, d)
        assert found.codes.shape == (n, rank)
        assert found.components.min() >= 0
        assert found.codes.min() >= 0


def test_error_is_at_most_that_of_scikit_learn_at_every_rank_below_d(structure: Make) -> None:
    a = structure(60, 8, 5)
    for rank in range(1, 8):
        # where the matrix has that rank both errors are rounding and the stopping rule decides
        assert fit_nmf(a, rank).relative_error <= max(1.01 * oracle_error(a, rank), 1e-4), rank


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "d", "rank"),
    [(130_000, 64, 3), (8_000, 150, 15), (1_000, 1_050, 12)],  # with a sample, a larger share, none
)
def test_error_is_at_most_that_of_scikit_learn_on_large_input(structure: Make, n: int, d: int, rank: int) -> None:
    a = structure(n, d, rank).astype(np.float32)
    assert fit_nmf(a, rank).relative_error <= 1.005 * oracle_error(a, rank)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_reported_error_is_that_of_the_returned_pair(structure: Make, dtype: type[np.floating[Any]]) -> None:
    a = structure(90, 14, 3).astype(dtype)
    found = fit_nmf(a, 4)
    np.testing.assert_allclose(
        found.relative_error, direct_error(a, np.asarray(found.codes), np.asarray(found.components)), rtol=1e-4
    )
    assert found.codes.dtype == (np.float64 if dtype is np.float64 else np.float32)


@pytest.mark.parametrize("n", [300, 60_000])
def test_planted_factors_are_found(n: int) -> None:
    rng = np.random.default_rng(1)
    planted = rng.random((4, 40)) * (rng.random((4, 40)) < 0.4)
    a = (rng.gamma(0.5, size=(n, 4)) * (rng.random((n, 4)) < 0.5) @ planted).astype(np.float32)
    found = fit_nmf(a, 4)
    cosine = (found.components @ planted.T) / np.linalg.norm(planted, axis=1)
    match = linear_sum_assignment(-cosine)
    assert cosine[match].min() > 0.999
    assert found.relative_error < 2e-2


def test_one_outer_product_by_hand() -> None:
    codes, component = np.array([1.0, 2.0, 0.0, 3.0]), np.array([3.0, 0.0, 4.0])
    found = fit_nmf(np.outer(codes, component), 1)
    np.testing.assert_allclose(found.components, [[0.6, 0.0, 0.8]], atol=1e-9)  # of unit length
    np.testing.assert_allclose(found.codes[:, 0], 5 * codes, atol=1e-9)
    assert found.relative_error < 1e-9


def test_two_disjoint_blocks_by_hand() -> None:
    a = np.zeros((5, 4), dtype=np.float32)
    a[:3, :2], a[3:, 2:] = 2.0, 1.0
    found = fit_nmf(a, 2)
    half = np.sqrt(0.5)
    np.testing.assert_allclose(found.components, [[half, half, 0, 0], [0, 0, half, half]], atol=1e-5)  # larger first
    np.testing.assert_allclose(found.codes[:, 0], [2 / half] * 3 + [0] * 2, atol=1e-5)


def test_all_zero_maps_give_zeros() -> None:
    found = fit_nmf(np.zeros((30, 6), dtype=np.float32), 3)
    np.testing.assert_array_equal(found.components, np.zeros((3, 6)))
    np.testing.assert_array_equal(found.codes, np.zeros((30, 3)))
    assert found.relative_error == 0.0


def test_all_negative_input_is_all_zero_and_counted() -> None:
    found = fit_nmf(-np.ones((7, 3)), 2)
    assert (found.clamped, found.relative_error, float(found.codes.max())) == (21, 0.0, 0.0)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (1, 5), (5, 1), (1, 1)])
def test_rank_of_at_least_n_or_d_is_cut_and_exact(shape: tuple[int, int]) -> None:
    a = np.random.default_rng(0).random(shape)
    for rank in (min(shape), 50):
        found = fit_nmf(a, rank)
        assert found.components.shape == (min(shape), shape[1])
        assert found.codes.shape == (shape[0], min(shape))
        np.testing.assert_allclose(found.codes @ found.components, a, atol=1e-12)
        assert found.relative_error < 1e-12


def test_rank_above_that_of_the_matrix() -> None:
    a = np.outer(np.arange(1.0, 40.0), np.arange(1.0, 11.0))
    found = fit_nmf(a, 6)
    assert np.isfinite(found.codes).all()
    assert np.isfinite(found.components).all()
    assert found.relative_error < 1e-5


def test_negatives_are_clamped_and_counted() -> None:
    a = np.random.default_rng(2).standard_normal((50, 8)).astype(np.float32)
    before = a.copy()
    found, clamped = fit_nmf(a, 3), fit_nmf(np.maximum(a, 0), 3)
    assert found.clamped == int((a < 0).sum())
    assert clamped.clamped == 0
    np.testing.assert_allclose(found.relative_error, clamped.relative_error, rtol=1e-4)
    np.testing.assert_array_equal(a, before)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_nan_and_infinity_are_named(bad: float, kind: Callable[[Array], Any]) -> None:
    a = np.ones((500, 4), dtype=np.float32)
    a[321, 2] = bad
    with pytest.raises(ValueError, match=f"^a: expected finite values, found {bad} at row 321, column 2"):
        fit_nmf(kind(a), 2)


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4), (0, 3), (3, 0)])
def test_wrong_shapes_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected a matrix .*found shape \(" + str(shape[0])):
        fit_nmf(np.ones(shape), 1)


def test_rank_below_one_and_wrong_kinds_are_named() -> None:
    with pytest.raises(ValueError, match="rank: expected at least 1, found 0"):
        fit_nmf(np.ones((2, 2)), 0)
    for rank in (1.5, "2", None, True):
        with pytest.raises(TypeError, match="rank: expected an integer, found"):
            fit_nmf(np.ones((2, 2)), rank)  # type: ignore[arg-type]  # the wrong kind is the point
    with pytest.raises(TypeError, match=r"^a: expected a real numpy array or torch tensor, found MaskedArray"):
        fit_nmf(np.ma.masked_array(np.ones((2, 2)), np.eye(2) > 0), 1)  # its mask would be ignored
    with pytest.raises(TypeError, match=r"^a: expected a real numpy array or torch tensor, found list"):
        fit_nmf([[1.0]], 1)  # type: ignore[arg-type]  # the wrong kind is the point
    with pytest.raises(TypeError, match="found ndarray of complex128"):
        fit_nmf(np.ones((2, 2), dtype=complex), 1)


@pytest.mark.parametrize(("n", "d"), [(200, 12), (20_000, 64)])
def test_same_seed_same_bytes(structure: Make, n: int, d: int) -> None:
    a = structure(n, d, 0).astype(np.float32)
    first, second = fit_nmf(a, 3, seed=[4, 2]), fit_nmf(a, 3, seed=[4, 2])
    assert np.asarray(first.codes).tobytes() == np.asarray(second.codes).tobytes()
    assert np.asarray(first.components).tobytes() == np.asarray(second.components).tobytes()


def test_torch_and_numpy_agree(structure: Make) -> None:
    a = structure(120, 15, 6).astype(np.float32)
    array, tensor = fit_nmf(a, 4), fit_nmf(torch.from_numpy(a), 4)
    assert isinstance(array.codes, np.ndarray)
    assert isinstance(tensor.codes, torch.Tensor)
    assert isinstance(tensor.components, torch.Tensor)
    np.testing.assert_array_equal(array.codes, tensor.codes.numpy())
    np.testing.assert_array_equal(array.components, tensor.components.numpy())


def test_result_does_not_depend_on_chunks(structure: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    a = structure(151, 12, 7)
    whole = fit_nmf(a, 4)
    monkeypatch.setitem(rows_module.CHUNK_BYTES, "cpu", 49 * 12 * 8)  # 49 rows, the last chunk has four
    chunked = fit_nmf(a, 4)
    np.testing.assert_allclose(chunked.relative_error, whole.relative_error, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("order", ["read-only", "fortran", "reversed", "big-endian", "strided"])
def test_layout_of_the_input_does_not_matter(order: str) -> None:
    a = np.random.default_rng(8).random((80, 9)).astype(np.float32)
    layouts: dict[str, Array] = {
        "read-only": a.copy(),
        "fortran": np.asfortranarray(a),
        "reversed": a[::-1].copy()[::-1],
        "big-endian": a.astype(">f4"),
        "strided": np.repeat(a, 2, axis=1)[:, ::2],
    }
    layouts["read-only"].flags.writeable = False
    np.testing.assert_allclose(fit_nmf(layouts[order], 3).relative_error, fit_nmf(a, 3).relative_error, rtol=1e-4)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_extreme_magnitudes_keep_their_scale(scale: float) -> None:
    a = np.random.default_rng(9).random((70, 8)).astype(np.float32)
    large, plain = fit_nmf(a * np.float32(scale), 3), fit_nmf(a, 3)
    np.testing.assert_allclose(large.relative_error, plain.relative_error, rtol=1e-3)
    model = (np.asarray(large.codes) @ np.asarray(large.components)).astype(np.float64) / scale
    np.testing.assert_allclose(np.linalg.norm(model - a) / np.linalg.norm(a), plain.relative_error, rtol=1e-3)


@pytest.mark.parametrize(("dtype", "scale"), [("float32", 1e-42), ("float64", 1e-312), ("float64", 1e307)])
def test_the_ends_of_the_range_are_read(dtype: str, scale: float) -> None:
    plain = np.random.default_rng(9).random((70, 8))
    a = (plain * scale).astype(dtype)
    found = fit_nmf(a, 3)
    np.testing.assert_allclose(found.relative_error, fit_nmf(plain, 3).relative_error, rtol=1e-3)
    codes = np.asarray(found.codes).astype(np.float64) / scale  # of the pair as returned, in the smallest numbers
    np.testing.assert_allclose(direct_error(a / scale, codes, np.asarray(found.components)), found.relative_error, 1e-5)


def test_codes_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"codes: expected values up to 3.4e\+38, the largest torch.float32"):
        fit_nmf(np.random.default_rng(9).random((70, 8)).astype(np.float32) * np.float32(3e38), 3)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "rank"), [(40_000, 30), (40_000, 40), (20_000, 30)])
def test_error_with_many_components_and_few_columns(n: int, rank: int) -> None:
    rng = np.random.default_rng(1)
    mixing = rng.normal(size=(128, 128))
    a = np.maximum(rng.normal(size=(n, 128)) @ mixing, 0).astype(np.float32)
    assert fit_nmf(a, rank).relative_error <= 1.005 * oracle_error(a, rank)


def test_rows_that_outweigh_the_rest_are_not_missed_by_the_sample() -> None:
    rng = np.random.default_rng(10)
    a = rng.random((130_000, 64), dtype=np.float32)
    heavy = np.zeros((3, 64), dtype=np.float32)
    heavy[:, :5] = 3000.0
    a[[11, 5_000, 99_999]] = heavy
    components = np.asarray(fit_nmf(a, 3).components)
    direction = heavy[0] / np.linalg.norm(heavy[0])
    assert (components @ direction).max() > 0.999


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize(
    ("n", "rank", "dtype"),
    [
        (20_000, 10, "float32"),
        pytest.param(60_000, 10, "float16", marks=pytest.mark.slow),
        pytest.param(20_000, 10, "float16", marks=pytest.mark.slow),
        pytest.param(6_000, 30, "float64", marks=pytest.mark.slow),
        pytest.param(12_000, 30, "float64", marks=pytest.mark.slow),
    ],
)
def test_memory_beyond_the_input_is_bounded(
    peak_memory: Callable[[str, str], float], n: int, rank: int, dtype: str
) -> None:
    setup = (
        "import numpy as np\nfrom tasks.interpreters.ice import fit_nmf\n"
        "rng = np.random.default_rng(0)\n"
        "warm = fit_nmf(rng.random((5000, 256), dtype=np.float32), 3)\n"
        f"a = np.empty(({n}, 512), dtype='{dtype}')\n"
        f"for i in range(0, {n}, 1000):\n    a[i : i + 1000] = rng.random((1000, 512)) ** 4\n"
    )
    extra = peak_memory(setup, f"found = fit_nmf(a, {rank})")
    itemsize = np.dtype(dtype).itemsize
    codes = n * rank * max(4, itemsize)
    assert codes < extra <= 0.75 * n * 512 * itemsize + 4 * codes


@pytest.mark.parametrize(("seed", "error"), [(None, TypeError), ("a", TypeError), (1.5, TypeError), (-1, ValueError)])
def test_seeds_that_cannot_be_repeated_are_refused(seed: int, error: type[Exception]) -> None:
    with pytest.raises(error, match="seed: expected"):
        fit_nmf(np.ones((3, 3)), 1, seed=seed)
