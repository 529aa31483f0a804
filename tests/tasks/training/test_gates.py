"""Class-specific gates: what they multiply, their gradient, their penalty, and the epochs they take part in."""

import numpy as np
import pytest
import torch
from torch import nn

from configs.companions import Gates
from tasks.training.gates import ClassGates, Gating, largest_gates
from tests.tasks.training.gated import CHANNELS, CLASSES


def random_gates(seed: int = 0) -> ClassGates:
    """Return gates between -0.2 and 1.2, in float64."""
    values = torch.rand((CHANNELS, CLASSES), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    gates = ClassGates(CHANNELS, CLASSES).double()
    with torch.no_grad():
        gates.weight.copy_(1.4 * values - 0.2)
    return gates


def test_gates_start_half_open() -> None:
    assert torch.equal(ClassGates(2, 3).weight, torch.tensor([[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]))


@pytest.mark.parametrize("m", [7, 5])
def test_each_channel_is_multiplied_by_the_gate_of_the_label(m: int) -> None:
    maps = torch.randn((7, CHANNELS, 3, 2), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    labels, gates = torch.tensor([2, 0, 1, 1, 0, 2, 2][:m]), random_gates()
    before, found = maps.clone(), gates(maps, labels)
    expected = maps.clone()
    for i, label in enumerate(labels.tolist()):
        for k in range(CHANNELS):
            expected[i, k] = maps[i, k] * float(gates.weight[k, label].detach())
    assert torch.equal(found, expected)  # rows beyond the labels as they are
    assert torch.equal(maps, before)


def test_the_gradient_of_a_gate_sums_over_the_images_of_its_class() -> None:
    maps = torch.randn((6, CHANNELS, 3, 2), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    labels, gates = torch.tensor([2, 0, 1, 1, 0, 2]), random_gates()
    factor = torch.randn(maps.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    (gates(maps, labels) * factor).sum().backward()
    expected = torch.zeros((CHANNELS, CLASSES), dtype=torch.float64)
    for i, label in enumerate(labels.tolist()):
        expected[:, label] += (maps[i] * factor[i]).sum((1, 2))
    assert gates.weight.grad is not None
    torch.testing.assert_close(gates.weight.grad, expected, rtol=1e-12, atol=1e-12)


def test_the_penalty_is_the_l1_norm_beyond_its_share() -> None:
    gates = random_gates()
    norm = sum(abs(value) for row in gates.weight.tolist() for value in row)
    assert float(gates.penalty(0.2).detach()) == pytest.approx(norm - 0.2 * CHANNELS * CLASSES, rel=1e-12)
    for share, slope in ((0.2, gates.weight.detach().sign()), (1.0, torch.zeros_like(gates.weight))):
        (gradient,) = torch.autograd.grad(gates.penalty(share), [gates.weight])
        assert torch.equal(gradient, slope)
    assert float(gates.penalty(1.0).detach()) == 0.0


def test_rows_are_divided_by_their_maximum_and_clamped() -> None:
    rows = [[0.5, 1.0, -0.25], [2.0, 4.0, 1.0], [0.0, 0.0, 0.0], [-1.0, -2.0, -4.0], [0.0, 0.2, -9.0]]
    gates = ClassGates.of(torch.tensor(rows))
    gates.normalise()
    assert gates.weight.tolist() == [[0.5, 1.0, 0.0], [0.5, 1.0, 0.25], [0.0] * 3, [0.0] * 3, [0.0, 1.0, 0.0]]
    before = gates.weight.detach().clone()
    gates.normalise()
    assert torch.equal(gates.weight, before)


def test_the_penalty_alone_closes_no_channel() -> None:
    gates = ClassGates(2, 3)
    gating, optimizer = Gating(gates, nn.Identity(), weight=0.1), torch.optim.SGD(gates.parameters(), lr=1.0)
    for _ in range(5):
        gating.loss().backward()  # type: ignore[no-untyped-call]  # torch's stub
        optimizer.step()
        gating.after_update()
    assert gates.weight.tolist() == [[1.0] * 3] * 2
    assert gates.weight.grad is None


def test_which_epochs_have_gates() -> None:
    gating = Gating(ClassGates(1, 1), nn.Identity())
    assert [epoch for epoch in range(25) if gating.takes_part(epoch)] == [11, 14, 17, 20, 23]
    always = Gating(ClassGates(1, 1), nn.Identity(), plain_epochs=0, period=1)
    assert all(always.takes_part(epoch) for epoch in range(5))


def test_the_config_knows_the_first_epoch_with_gates() -> None:
    for plain in range(12):
        for period in range(1, 6):
            gating = Gating(ClassGates(1, 1), nn.Identity(), plain_epochs=plain, period=period)
            first = next(epoch for epoch in range(99) if gating.takes_part(epoch))
            assert Gates(lr=1, plain_epochs=plain, period=period).first_epoch == first, (plain, period)


def test_the_largest_gates_by_hand() -> None:
    gates = np.array([[1.0, 0.0], [0.5, 1.0], [1.0, 1.0], [0.2, 1.0]], np.float32)
    indices, ties = largest_gates(gates, 2)
    np.testing.assert_array_equal(indices, [[0, 2], [1, 2]])
    assert indices.dtype == np.int64
    np.testing.assert_array_equal(ties, [False, True])
    np.testing.assert_array_equal(largest_gates(gates, 4)[0], [[0, 2, 1, 3], [1, 2, 3, 0]])
    assert not largest_gates(gates, 4)[1].any()
    for k in (0, 5):
        with pytest.raises(ValueError, match=rf"k: expected 1\.\.4, found {k}"):
            largest_gates(gates, k)
