"""One update between two states of a weight, projected without its difference in memory."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tasks.tracing import projector
from tasks.tracing.projector import Projector

CASES: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(37, 53, bias=False), (37,)),
    "few outputs": (nn.Linear(600, 3, bias=False), (600,)),
    "a convolution of one position": (nn.Conv2d(3, 11, 4, bias=False), (3, 4, 4)),
}


def setting(name: str, queries: int, size: float) -> tuple[Projector, Tensor, Tensor, Tensor]:
    """Return a projector, the inputs as rows, and the weights before and after an update of about some size."""
    module, shape = CASES[name]
    generator = torch.Generator().manual_seed(0)
    weight = 0.05 * torch.randn(module.get_parameter("weight").shape, generator=generator)
    inputs = torch.randn(queries, *shape, generator=generator)
    after = weight + size * torch.randn(weight.shape, generator=generator)
    return Projector(module, weight, inputs), inputs.flatten(1), weight, after


@pytest.mark.parametrize("cached", [1, 4096, 2**21])
@pytest.mark.parametrize("queries", [1, 2, 9])
@pytest.mark.parametrize("name", CASES)
def test_it_is_the_product_in_float64(name: str, queries: int, cached: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of one row, of some and of all; updates of any size."""
    monkeypatch.setattr(projector, "CACHED", cached)
    for size in (1e-6, 1e-3, 1.0):
        made, rows, before, after = setting(name, queries, size)
        assert made.takes_ends
        found = made.between(before, after)
        update = (after - before).double().flatten(1)  # the difference in float32, as archives give it
        z, moved = rows.double() @ before.double().flatten(1).T, rows.double() @ update.T
        scale = (z.norm(dim=1) * moved.norm(dim=1)).numpy()
        np.testing.assert_allclose(found.gamma[:, 0], (z * moved).sum(dim=1), atol=2e-5 * scale.max(), rtol=0)
        np.testing.assert_allclose(found.norm[:, 0], moved.norm(dim=1), rtol=2e-5)
        whole = made.contributions((after - before)[None])
        for part, unit in {"gamma": scale.max(), "norm": 0.0, "cosine": 1.0, "preactivation_norm": 0.0}.items():
            torch.testing.assert_close(getattr(found, part), getattr(whole, part), rtol=4e-5, atol=4e-5 * unit)


def test_a_change_that_cancels_is_computed_in_float64() -> None:
    """The update sees only a small part of the query: digits are lost in float32."""
    module = nn.Linear(400, 30, bias=False)
    before = module.weight.detach()
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(1, 400, generator=generator)
    update = torch.randn(30, 400, generator=generator)
    update -= (update.double() @ query[0].double()).float()[:, None] * query / query.square().sum()  # nearly orthogonal
    after = before + 2.0**-10 * update
    found = Projector(module, before, query).between(before, after)
    moved = query.double() @ (after - before).double().T
    np.testing.assert_allclose(found.norm[0, 0], moved.norm(), rtol=2e-5)


def test_an_update_that_did_not_happen() -> None:
    made, _, before, _ = setting("linear", 3, 1.0)
    found = made.between(before, before.clone())
    assert not found.gamma.any()
    assert not found.norm.any()
    assert not found.cosine.any()


def test_what_is_not_a_number_is_named() -> None:
    made, _, before, after = setting("linear", 3, 1.0)
    after[7, 5] = float("nan")
    with pytest.raises(ValueError, match=r"^updates: expected finite values"):
        made.between(before, after)


def test_other_operations_take_whole_updates() -> None:
    linear, grouped = nn.Linear(5, 4), nn.Conv2d(4, 4, 1, groups=2, bias=False)
    weight = linear.weight.detach()
    assert not Projector(linear, weight, torch.randn(2, 5), bias=torch.zeros(4)).takes_ends
    assert not Projector(linear, weight.double(), torch.randn(2, 5).double()).takes_ends
    assert not Projector(linear, weight, torch.randn(2, 5), norms=False).takes_ends
    assert not Projector(grouped, grouped.weight.detach(), torch.randn(2, 4, 1, 1)).takes_ends
