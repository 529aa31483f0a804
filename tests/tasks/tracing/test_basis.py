"""A basis of query directions: exact in the span of its references, with an error that is stated outside."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.modules.rows import values_of
from tasks.tracing import contributions
from tasks.tracing.basis import Calibration, Directions, fit_basis

CASES: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(7, 5), (7,)),
    "tokens": (nn.Linear(6, 4, bias=False), (3, 6)),
    "convolution": (nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (4, 7, 7)),
    "transposed": (nn.ConvTranspose2d(3, 2, 2), (3, 4, 4)),
}


def setting(name: str, n: int, *, bias: bool = False) -> tuple[Directions, Tensor, Tensor]:
    """Return directions of n queries in float64, and updates of weight and bias."""
    module, shape = CASES[name]
    module = module.double()
    generator = torch.Generator().manual_seed(0)
    assert isinstance(module.weight, Tensor)
    weight = torch.randn(module.weight.shape, generator=generator, dtype=torch.float64)
    inputs = torch.randn(n, *shape, generator=generator, dtype=torch.float64)
    out = module(inputs[:1]).shape[-1] if isinstance(module, nn.Linear) else module(inputs[:1]).shape[1]
    shift = torch.randn(out, generator=generator, dtype=torch.float64) if bias else None
    updates = torch.randn(30, *weight.shape, generator=generator, dtype=torch.float64)
    return Directions(module, weight, inputs, bias=shift), updates, torch.randn(30, out, dtype=torch.float64)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_products_are_those_of_the_gradients(name: str, bias: bool) -> None:
    found, updates, biases = setting(name, 5, bias=bias)
    gradients = [found.gradient(i) for i in range(5)]
    flat = torch.stack([torch.cat([w.flatten()] + ([] if b is None else [b.flatten()])) for w, b in gradients]).numpy()
    np.testing.assert_allclose(found.products(found), flat @ flat.T, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.squares(), (flat**2).sum(axis=1), rtol=1e-12)
    both = torch.cat([updates.flatten(1)] + ([biases] if bias else []), dim=1).numpy()
    np.testing.assert_allclose(found.gammas(updates, biases if bias else None), both @ flat.T, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", CASES)
def test_a_query_of_the_span_is_exact(name: str) -> None:
    """With as many axes as references, gammas of a reference are those of `contributions`."""
    found, updates, _ = setting(name, 6)
    basis = fit_basis(found.products(found), 6)
    steps = basis.coefficients(found.gammas(updates))
    query = Directions(found.module, found.weight, found.inputs[2:3])
    place = basis.coefficients(found.products(query).T)
    assert basis.share(place, query.squares())[0] == pytest.approx(1.0, abs=1e-9)
    exact = contributions(found.module, found.weight, query.inputs, updates).gamma[0].numpy()
    np.testing.assert_allclose(steps @ place[0], exact, rtol=1e-6, atol=1e-6 * np.abs(exact).max())


def test_axes_are_those_of_an_explicit_pca() -> None:
    found, updates, _ = setting("convolution", 12)
    rows = torch.cat([found.gradient(i)[0].flatten(1) for i in range(12)]).numpy()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    _, _, axes = np.linalg.svd(rows, full_matrices=False)
    basis = fit_basis(found.products(found), 4)
    steps, expected = basis.coefficients(found.gammas(updates)), updates.flatten(1).numpy() @ axes[:4].T
    np.testing.assert_allclose(np.abs(steps), np.abs(expected), rtol=1e-6, atol=1e-8)
    query = Directions(found.module, found.weight, torch.randn(1, 4, 7, 7, dtype=torch.float64))
    direction = query.gradient(0)[0].flatten().numpy()
    share = basis.share(basis.coefficients(found.products(query).T), query.squares())[0]
    assert share == pytest.approx(((axes[:4] @ direction) ** 2).sum() / (direction**2).sum(), rel=1e-6)


def test_references_that_repeat_span_less() -> None:
    found, updates, _ = setting("linear", 3)
    same = Directions(found.module, found.weight, values_of(found.inputs)[[0, 0, 1, 1]])
    basis = fit_basis(same.products(same), 4)
    assert (np.abs(basis.weights).sum(axis=0) > 0).sum() == 2
    assert np.isfinite(basis.coefficients(same.gammas(updates))).all()
    silent = Directions(found.module, found.weight, torch.zeros(2, 7, dtype=torch.float64))
    assert not fit_basis(silent.products(silent), 4).weights.any()


def test_the_calibrated_error_is_that_of_the_rest() -> None:
    """Of random updates, the neglected part of a query has the stated error; a query outside is flagged."""
    torch.manual_seed(0)
    module, weight = nn.Linear(40, 30, bias=False).double(), torch.randn(30, 40, dtype=torch.float64)
    centre = torch.randn(10, 40, dtype=torch.float64)
    near = centre[torch.arange(40) % 10] + 0.2 * torch.randn(40, 40, dtype=torch.float64)
    references = Directions(module, weight, near[:30])
    basis = fit_basis(references.products(references), 10)
    updates = torch.randn(500, 30, 40, dtype=torch.float64)
    steps, norms = basis.coefficients(references.gammas(updates)), updates.flatten(1).norm(dim=1).numpy()

    def errors(inputs: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        query = Directions(module, weight, inputs)
        place, squares = basis.coefficients(references.products(query).T), query.squares()
        scale = norms[:, None] * np.sqrt(squares)
        exact = query.gammas(updates) / scale
        off = steps @ place.T / scale - exact
        return basis.share(place, squares), np.sqrt((off**2).mean(axis=0)), np.sqrt((exact**2).mean(axis=0))

    calibration = Calibration(*errors(near[30:]))
    new = centre + 0.2 * torch.randn(10, 40, dtype=torch.float64)
    share, error, _ = errors(new)
    stated = np.array([calibration.scale(float(one)) for one in share])
    assert (error <= 1.25 * stated).mean() >= 0.9
    assert (error >= stated / 3).all()  # it is not a bound without content
    assert not any(calibration.outside(float(one) * 1.2) for one in share)
    far, missed, _ = errors(torch.randn(5, 40, dtype=torch.float64))
    assert all(calibration.outside(float(one)) for one in far)
    assert (missed <= 1.3 * np.array([calibration.scale(float(one)) for one in far])).all()


def test_linear_directions_are_outer_products() -> None:
    found, _, _ = setting("linear", 4)
    inputs = values_of(found.inputs)
    z = F.linear(inputs, found.weight)
    np.testing.assert_allclose(found.products(found), ((z @ z.T) * (inputs @ inputs.T)).numpy(), rtol=1e-9, atol=1e-9)


def test_the_stated_error_is_not_below_that_of_rounding() -> None:
    """A query inside the span neglects nothing; its coefficients are rounded all the same."""
    held_out = Calibration(np.array([1.0, 0.96]), np.array([1e-3, 1e-1]), np.ones(2))
    assert held_out.scale(1.0) == 1e-3
    assert held_out.scale(0.96) == pytest.approx(0.2)
    assert Calibration(np.empty(0), np.empty(0), np.empty(0)).scale(1.0) == 0.0
