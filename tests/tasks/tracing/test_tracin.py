"""Products of gradients, by plain sums."""

import numpy as np
import torch

from tasks.tracing.tracin import gradient_products, self_products

RATES = {"weight": 0.5, "bias": 0.25, "scale": 2.0}


def gradients(count: int, seed: int) -> dict[str, torch.Tensor]:
    """Gradients of a matrix, a vector and a single number."""
    made = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {"weight": (4, 3), "bias": (4,), "scale": ()}
    return {name: torch.randn(count, *shape, generator=made) for name, shape in shapes.items()}


def test_products_sum_over_all_weights_at_their_own_rates() -> None:
    queries, examples = gradients(3, 0), gradients(5, 1)
    found = gradient_products(queries, examples, RATES.__getitem__)
    assert found.dtype == torch.float64
    for q in range(3):
        for b in range(5):
            expected = sum(
                RATES[name] * float(np.sum(queries[name][q].double().numpy() * examples[name][b].double().numpy()))
                for name in RATES
            )
            np.testing.assert_allclose(float(found[q, b]), expected, rtol=1e-5, atol=1e-5)


def test_self_products_are_the_diagonal() -> None:
    examples = gradients(5, 2)
    found = self_products(examples, RATES.__getitem__)
    expected = [
        sum(RATES[name] * float(np.sum(examples[name][b].double().numpy() ** 2)) for name in RATES) for b in range(5)
    ]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
