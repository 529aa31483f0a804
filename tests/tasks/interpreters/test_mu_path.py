"""The path of the mu-lasso on nearly dependent units: the loss against SciPy, to the end and between breakpoints."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from tasks.interpreters.mu_path import mu_path
from tasks.interpreters.vebi import mu_lasso

Doubles = NDArray[np.float64]


def sparse_energies(count: int) -> Iterator[tuple[Doubles, Doubles]]:
    """Yield responses X (n, M) with many more units than samples, and one-hot classes (n, 4)."""
    rng = np.random.default_rng(5)
    for _ in range(count):
        n, units = int(rng.integers(4, 12)), int(rng.integers(100, 240)) // 4
        layers = [rng.random((n, units)) ** 4 for _ in range(4)]
        x = np.concatenate([layer / layer.sum(axis=1, keepdims=True) for layer in layers], axis=1)
        yield np.where(rng.random(x.shape) < 0.6, 0.0, x), np.eye(4)[np.arange(n) % 4]


def bounded(x: Doubles, label: Doubles, mu: float) -> float:
    """Return the least loss `||l - X w||^2 / 2` over w >= 0 with `sum(w) = mu`, by nnls with a heavy equation more."""
    heavy = 1e4
    system = np.concatenate([x, np.full((1, x.shape[1]), heavy / mu)])
    weights = nnls(system, np.append(label, heavy), maxiter=100_000)[0]
    weights *= mu / weights.sum()
    return float(np.square(x @ weights - label).sum() / 2)


def loss(x: Doubles, label: Doubles, weights: Doubles) -> float:
    """Return the loss of weights."""
    return float(np.square(x @ weights - label).sum() / 2)


def test_the_end_is_non_negative_least_squares() -> None:
    for number, (x, labels) in enumerate(sparse_energies(210)):
        gram, moment = x.T @ x, x.T @ labels
        for label, weights in zip(labels.T, mu_lasso(gram, moment, np.inf), strict=True):
            assert weights.min() >= 0
            assert np.count_nonzero(weights) <= len(x)  # zeros are exact
            least = nnls(x, label, maxiter=100_000)[1] ** 2 / 2
            assert loss(x, label, weights) - least < 1e-6 * label.sum(), number


def test_between_the_last_breakpoints_the_loss_is_least() -> None:
    for number, (x, labels) in enumerate(sparse_energies(140)):
        label = labels[:, number % 4]
        path = mu_path(x.T @ x, x.T @ label)
        for low, high in zip(path.mu[-4:-1], path.mu[-3:], strict=False):
            if not 0 < (mu := float(low + high) / 2) < 1e4:  # the heavy equation is not exact for more
                continue
            weights = path.at(mu)
            np.testing.assert_allclose(weights.sum(), mu, rtol=1e-6)
            assert loss(x, label, weights) - bounded(x, label, mu) < 1e-6 * label.sum(), number


def test_every_mu_of_a_path_can_be_asked_for() -> None:
    product = np.array([[0.6], [0.2], [0.5], [0.3], [0.5]])
    np.testing.assert_allclose(mu_lasso(np.eye(5), product, 1.1).sum(), 1.1)
    for x, labels in sparse_energies(20):
        gram, moment = x.T @ x, x.T @ labels[:, :1]
        path = mu_path(gram, moment[:, 0])
        for mu in path.mu.tolist():
            found = mu_lasso(gram, moment, mu)[0]
            np.testing.assert_allclose(loss(x, labels[:, 0], found), loss(x, labels[:, 0], path.at(mu)), atol=1e-6)
