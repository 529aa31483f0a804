"""VEBI: unit responses by hand, and the mu-lasso against optimality conditions, SciPy and cases by hand."""

import time
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize, nnls

from tasks.interpreters.mu_path import MuPath, mu_path
from tasks.interpreters.vebi import mu_lasso, unit_responses

Doubles = NDArray[np.float64]
MUS = (0.0, 0.01, 0.3, 1.0, 10.0, 1e4)


def problem(kind: str, seed: int) -> tuple[Doubles, Doubles]:
    """Return responses X (n, M) and one class's indicator l (n,)."""
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(3, 50)), int(rng.integers(1, 40))
    x = np.abs(rng.normal(size=(n, m))) * (rng.random((n, m)) < 0.6)
    if kind == "duplicates":
        x = np.concatenate([x, x[:, ::2], x[:, :1] + x[:, -1:]], axis=1)
    if kind == "ties":
        x = rng.integers(0, 2, (n, m)).astype(np.float64)
    if kind == "energies":
        x = x**3 / np.maximum((x**3).sum(axis=1, keepdims=True), 1e-12)
    if kind == "scales":
        x = x * 10.0 ** rng.integers(-4, 4, m)
    return x, (rng.random(n) < 0.3).astype(np.float64)


def violation(gram: Doubles, product: Doubles, weights: Doubles, mu: float) -> float:
    """Return by how much the optimality conditions fail, relative to the largest product."""
    slope = product - gram @ weights
    scale = max(float(np.abs(product).max()), 1e-300)
    penalty = max(0.0, float(slope.max()))
    active = weights > 0
    stationary = float(np.abs(slope[active] - penalty).max()) if active.any() else 0.0
    slack = penalty * max(0.0, mu - float(weights.sum()))
    return max(stationary, slack) / scale + max(0.0, float(weights.sum()) - mu) / max(mu, 1e-300)


def slow_lasso(gram: Doubles, product: Doubles, mu: float) -> Doubles:
    """Return the weights that a general solver finds."""

    def loss(w: Doubles) -> tuple[float, Doubles]:
        return float(0.5 * w @ gram @ w - product @ w), gram @ w - product

    start, bound = np.full(len(gram), mu / len(gram)), {"type": "ineq", "fun": lambda w: mu - w.sum()}
    options = {"ftol": 1e-14, "maxiter": 500}
    found = minimize(  # type: ignore[call-overload]  # the stubs know other forms of the loss
        loss, start, jac=True, bounds=[(0, None)] * len(gram), constraints=bound, options=options, method="SLSQP"
    )
    weights: Doubles = found.x
    return weights


@pytest.mark.parametrize("kind", ["plain", "duplicates", "ties", "energies", "scales"])
def test_the_optimality_conditions_hold_everywhere(kind: str) -> None:
    for seed in range(40):
        x, label = problem(kind, seed)
        gram, product = x.T @ x, x.T @ label
        for mu in MUS:
            (weights,) = mu_lasso(gram, product[:, None], mu)
            assert weights.min() >= 0
            assert violation(gram, product, weights, mu) < 1e-9, (seed, mu)


def test_without_a_bound_it_is_non_negative_least_squares() -> None:
    for seed in range(30):
        x, label = problem("plain", seed)
        expected = nnls(x, label)[0]
        (found,) = mu_lasso(x.T @ x, (x.T @ label)[:, None], np.inf)
        np.testing.assert_allclose(np.linalg.norm(x @ found - label), np.linalg.norm(x @ expected - label), atol=1e-9)
        if np.linalg.matrix_rank(x) == x.shape[1]:
            np.testing.assert_allclose(found, expected, atol=1e-8)
            np.testing.assert_array_equal(found == 0, expected == 0)


def test_against_a_general_solver() -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        x, label = rng.random((30, 6)), (rng.random(30) < 0.4).astype(np.float64)
        gram, product = x.T @ x, x.T @ label
        for mu in (0.05, 0.2, 0.5):
            solved = slow_lasso(gram, product, mu)
            np.testing.assert_allclose(mu_lasso(gram, product[:, None], mu)[0], solved, atol=1e-5)


def test_independent_units_by_hand() -> None:
    # Orthonormal units: weights are max(0, b - lam). With b = (3, 2, 1) and mu = 2: lam = 1.5, weights 1.5 and 0.5.
    gram, product = np.eye(3), np.array([[3.0], [2.0], [1.0]])
    np.testing.assert_allclose(mu_lasso(gram, product, 2.0), [[1.5, 0.5, 0.0]], atol=1e-12)
    np.testing.assert_allclose(mu_lasso(gram, product, 0.5), [[0.5, 0.0, 0.0]], atol=1e-12)
    np.testing.assert_allclose(mu_lasso(gram, product, 99.0), [[3.0, 2.0, 1.0]], atol=1e-12)
    assert (mu_lasso(gram, product, 0.5)[0, 1:] == 0).all()  # zeros are exact
    path = mu_path(gram, product[:, 0])
    np.testing.assert_allclose(path.mu, [0, 1, 3, 6], atol=1e-12)
    np.testing.assert_allclose(path.penalty, [3, 2, 1, 0], atol=1e-12)


def test_a_unit_leaves_the_path_by_hand() -> None:
    # The first unit has product 2, the others 1.5, so it enters first. The others together explain all samples exactly.
    x, label = np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 0.5, 0.5]]), np.array([1.0, 1.0, 1.0])
    path = mu_path(x.T @ x, x.T @ label)
    np.testing.assert_allclose(path.at(1e9), [0.0, 1.0, 1.0], atol=1e-12)
    early = path.at(0.2)
    assert early[0] > 0
    assert path.at(1e9)[0] == 0


def test_rows_are_classes_and_do_not_depend_on_each_other() -> None:
    x, _ = problem("plain", 7)
    labels = np.eye(4)[np.random.default_rng(0).integers(0, 3, len(x))]  # the last class is never predicted
    gram, moment = x.T @ x, x.T @ labels
    found = mu_lasso(gram, moment, 0.4)
    assert found.shape == (4, x.shape[1])
    assert found.dtype == np.float64
    assert (found[3] == 0).all()
    np.testing.assert_array_equal(found[1], mu_lasso(gram, moment[:, 1:2], 0.4)[0])


def test_dead_units_have_zeros_and_change_nothing() -> None:
    x, label = problem("plain", 3)
    dead = np.concatenate([np.zeros((len(x), 1)), x, np.zeros((len(x), 2))], axis=1)
    (found,) = mu_lasso(dead.T @ dead, (dead.T @ label)[:, None], 0.5)
    assert (found[[0, -2, -1]] == 0).all()
    np.testing.assert_allclose(found[1:-2], mu_lasso(x.T @ x, (x.T @ label)[:, None], 0.5)[0], atol=1e-12)
    assert (mu_lasso(np.zeros((2, 2)), np.zeros((2, 1)), 1.0) == 0).all()


def test_equal_units_the_lower_index_enters() -> None:
    x, label = problem("plain", 5)
    twice = np.concatenate([x, x], axis=1)
    (found,) = mu_lasso(twice.T @ twice, (twice.T @ label)[:, None], 0.7)
    assert (found[x.shape[1] :] == 0).all()
    np.testing.assert_allclose(found[: x.shape[1]], mu_lasso(x.T @ x, (x.T @ label)[:, None], 0.7)[0], atol=1e-9)


def test_order_and_scale_of_samples_do_not_matter() -> None:
    x, label = problem("plain", 11)
    turn = np.random.default_rng(1).permutation(x.shape[1])
    (found,) = mu_lasso(x.T @ x, (x.T @ label)[:, None], 0.3)
    (turned,) = mu_lasso(x[:, turn].T @ x[:, turn], (x[:, turn].T @ label)[:, None], 0.3)
    np.testing.assert_allclose(turned, found[turn], atol=1e-10)
    (many,) = mu_lasso(1e6 * x.T @ x, 1e6 * (x.T @ label)[:, None], 0.3)  # a million copies of every sample
    np.testing.assert_allclose(many, found, atol=1e-9)


@pytest.mark.parametrize("kind", ["plain", "ties", "energies"])
def test_the_path_has_every_mu(kind: str) -> None:
    x, label = problem(kind, 2)
    gram, product = x.T @ x, x.T @ label
    path = mu_path(gram, product)
    assert path.whole
    assert path.mu[0] == 0
    assert (np.diff(path.mu) >= 0).all()
    assert (np.diff(path.penalty) < 0).all()
    assert path.penalty[-1] == 0
    for mu in np.linspace(0, 1.2 * path.mu[-1], 23):
        assert violation(gram, product, path.at(mu), float(mu)) < 1e-9 or mu == 0
        np.testing.assert_allclose(path.at(mu).sum(), min(mu, path.mu[-1]), rtol=1e-9, atol=1e-12)
    short = mu_path(gram, product, until=path.mu[-1] / 3)
    assert len(short.mu) <= len(path.mu)
    np.testing.assert_allclose(short.at(path.mu[-1] / 3), path.at(path.mu[-1] / 3), atol=1e-12)
    if not short.whole:
        with pytest.raises(ValueError, match=r"mu: expected at most .*, where this path stops, found"):
            short.at(path.mu[-1])


def test_planted_units_of_a_class_are_found() -> None:
    rng = np.random.default_rng(4)
    predicted = rng.integers(0, 5, 600)
    x = 0.2 * rng.random((600, 80))
    x[np.arange(600), 7 + predicted] += 1.0  # unit 7 + c is large for class c
    x[np.arange(600), 30 + predicted] += 0.5
    labels = np.eye(5)[predicted]
    found = mu_lasso(x.T @ x, x.T @ labels, 0.5)
    np.testing.assert_array_equal(found.argmax(axis=1), 7 + np.arange(5))
    assert (found.sum(axis=1) <= 0.5 + 1e-9).all()


def test_a_further_mu_costs_a_fiftieth_of_a_solve_from_the_data() -> None:
    rng = np.random.default_rng(5)
    x = rng.random((1500, 300)) ** 4
    label = (x[:, :20].sum(axis=1) + 0.3 * rng.random(1500) > 4.2).astype(np.float64)

    def from_data() -> MuPath:
        return mu_path(x.T @ x, x.T @ label, until=2.0)

    path, times = from_data(), []
    for work in (from_data, lambda: path.at(0.37)):
        spent = []
        for _ in range(5):
            start = time.process_time()
            work()
            spent.append(time.process_time() - start)
        times.append(min(spent))
    assert times[0] > 50 * times[1]


def test_responses_by_hand() -> None:
    first = torch.tensor([[[[3.0, 0.0]], [[0.0, 4.0]]], [[[0.0, 0.0]], [[0.0, 0.0]]]])  # (2, 2, 1, 2), second is silent
    second = torch.tensor([[[[1.0]]], [[[2.0]]]])
    energy = unit_responses([first, second])
    np.testing.assert_allclose(energy, [[0.36, 0.64, 1.0], [0.0, 0.0, 1.0]], rtol=1e-6)
    np.testing.assert_allclose(unit_responses([second, first], kind="l2"), [[1, 3, 4], [2, 0, 0]], rtol=1e-6)
    np.testing.assert_allclose(unit_responses([first], kind="mean"), [[1.5, 2.0], [0.0, 0.0]], rtol=1e-6)
    assert energy.dtype == torch.float32
    assert unit_responses([first.double()]).dtype == torch.float64
    assert unit_responses([first.half()]).dtype == torch.float32


def test_responses_of_small_half_precision_maps_do_not_underflow() -> None:
    maps = torch.full((1, 3, 2, 2), 1e-4, dtype=torch.float16)
    maps[0, 0] *= 100
    energy = unit_responses([maps])
    assert float(energy[0, 1]) > 0
    np.testing.assert_allclose(energy.sum(), 1, rtol=1e-6)


def test_energies_of_a_layer_sum_to_one_and_scale_does_not_matter() -> None:
    layers = [torch.rand(4, f, 3, 3) for f in (5, 2)]
    energy = unit_responses(layers)
    np.testing.assert_allclose(energy[:, :5].sum(dim=1), 1, rtol=1e-6)
    np.testing.assert_allclose(energy[:, 5:].sum(dim=1), 1, rtol=1e-6)
    torch.testing.assert_close(unit_responses([layers[0] * 1e-15, layers[1] * 1e15]), energy)


@pytest.mark.parametrize(
    ("maps", "kind", "error", "message"),
    [
        ([], "energy", ValueError, "maps: expected at least one layer, found none"),
        ([torch.ones(1, 1, 1, 1)], "max", ValueError, "kind: expected energy, l2, mean, found 'max'"),
        ([np.ones((1, 1, 1, 1))], "energy", TypeError, r"maps\[0\]: expected a torch tensor, found ndarray"),
        ([torch.ones(1, 1, 1, 1, dtype=torch.int32)], "l2", TypeError, r"maps\[0\]: expected real numbers"),
        ([torch.ones(2, 3)], "l2", ValueError, r"maps\[0\]: expected \(n, f, h, w\) .* found shape \(2, 3\)"),
        ([torch.ones(2, 1, 1, 1), torch.ones(3, 1, 1, 1)], "l2", ValueError, r"maps\[1\]: expected the 2 images"),
        ([torch.full((1, 1, 1, 1), torch.inf)], "mean", ValueError, r"maps\[0\]: expected finite values"),
        (torch.ones(1, 1, 1, 1), "mean", TypeError, "maps: expected a list with a tensor of each layer, found Tensor"),
    ],
)
def test_wrong_maps_are_named(maps: Any, kind: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        unit_responses(maps, kind)


@pytest.mark.parametrize(
    ("gram", "moment", "mu", "error", "message"),
    [
        (torch.eye(2), np.ones((2, 1)), 1.0, TypeError, "gram: expected a NumPy array, found Tensor"),
        (np.eye(2, dtype=complex), np.ones((2, 1)), 1.0, TypeError, "gram: expected real numbers, found .* complex128"),
        (np.ones((2, 3)), np.ones((2, 1)), 1.0, ValueError, r"gram: expected \(M, M\) .* found shape \(2, 3\)"),
        (np.eye(2), np.ones(2), 1.0, ValueError, r"moment: expected \(2, C\) .* found shape \(2,\)"),
        (np.array([[1.0, 0.5], [0.0, 1.0]]), np.ones((2, 1)), 1.0, ValueError, "gram: expected a symmetric matrix"),
        (-np.eye(2), np.ones((2, 1)), 1.0, ValueError, "gram: expected a diagonal of at least 0"),
        (np.full((2, 2), np.nan), np.ones((2, 1)), 1.0, ValueError, "gram: expected finite values"),
        (np.eye(2), np.full((2, 1), np.inf), 1.0, ValueError, "moment: expected finite values"),
        (np.eye(2), np.ones((2, 1)), -1.0, ValueError, "mu: expected a number of at least 0, found -1.0"),
        (np.eye(2), np.ones((2, 1)), np.nan, ValueError, "mu: expected a number of at least 0, found nan"),
        (np.eye(2), np.ones((2, 1)), "1", TypeError, "mu: expected a number, found '1'"),
        (np.eye(2), np.ones((2, 1)), True, TypeError, "mu: expected a number, found True"),
    ],
)
def test_wrong_systems_are_named(gram: Any, moment: Any, mu: float, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        mu_lasso(gram, moment, mu)


def test_without_classes_there_are_no_rows() -> None:
    assert mu_lasso(np.eye(3), np.zeros((3, 0)), 1.0).shape == (0, 3)


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_maps_with_squares_beyond_float64_have_the_same_energies(scale: float) -> None:
    maps = torch.tensor([3.0, 4.0], dtype=torch.float64).reshape(1, 2, 1, 1) * scale
    energy = unit_responses([maps])
    np.testing.assert_allclose(energy.numpy(), [[9 / 25, 16 / 25]], rtol=1e-14)
    np.testing.assert_allclose(unit_responses([maps], "l2").numpy(), [[3 * scale, 4 * scale]], rtol=1e-14)


def test_subnormal_maps_have_energies() -> None:
    maps = torch.tensor([3.0, 4.0], dtype=torch.float64).reshape(1, 2, 1, 1) * 2.0**-1060  # exact, with fewer bits
    np.testing.assert_allclose(unit_responses([maps]).numpy(), [[9 / 25, 16 / 25]], rtol=1e-3)
    np.testing.assert_allclose(unit_responses([maps], "l2").numpy(), [[3 * 2.0**-1060, 4 * 2.0**-1060]], rtol=1e-3)
