"""Completeness and the class share: sums by hand, by loops, and of a real run."""

import numpy as np
import pytest
import torch
from torch import nn

from tasks.tracing import ClassShare, completeness_residual, contributions, shares_of_classes


def test_residual_by_hand() -> None:
    found = completeness_residual(
        np.array([3.0, 3.0, 0.0, 1.0]), np.array([1.0, 2.0, 0.0, 0.0]), np.array([2, 2, 0, 0])
    )
    np.testing.assert_array_equal(found, [0, 0.25, 0, np.inf])
    with pytest.raises(ValueError, match="expected one number per query, found 2, 1 and 1"):
        completeness_residual(np.zeros(2), np.zeros(1), np.zeros(1))


def test_a_trained_layer_is_complete_and_a_lost_step_shows() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 3, 3, padding=1, bias=False, dtype=torch.float64)
    optimizer = torch.optim.SGD(conv.parameters(), lr=0.05, momentum=0.9)
    images, weights = torch.randn(6, 2, 5, 5, dtype=torch.float64), [conv.weight.detach().clone()]
    for step in range(12):
        optimizer.zero_grad()
        (conv(images[step % 6 : step % 6 + 1]).square().sum() / 50 - 1).square().backward()
        optimizer.step()
        weights.append(conv.weight.detach().clone())
    updates = torch.stack(weights).diff(dim=0)
    found = contributions(conv, weights[-1], images, updates)
    init = contributions(conv, weights[-1], images, weights[0][None]).gamma[:, 0].numpy()
    gamma, size = found.gamma.numpy(), found.preactivation_norm.numpy()
    assert np.abs(completeness_residual(gamma.sum(axis=1), init, size)).max() < 1e-12
    lost = completeness_residual(np.delete(gamma, 4, axis=1).sum(axis=1), init, size)
    np.testing.assert_allclose(lost, -gamma[:, 4] / size**2, rtol=1e-6)


@pytest.mark.parametrize("cut", [0, 13, 40])
def test_class_share_against_a_loop(cut: int) -> None:
    rng = np.random.default_rng(0)
    gamma = rng.normal(size=(3, 40))
    epochs = np.repeat(np.arange(4), 10)
    labels = [rng.integers(0, 5, size=rng.integers(0, 4)) for _ in range(40)]
    shares = shares_of_classes(labels, 5)
    expected = np.zeros((3, 5, 4))
    for query in range(3):
        for step in range(40):
            for label in labels[step]:
                expected[query, label, epochs[step]] += gamma[query, step] / len(labels[step])
    first, second = ClassShare(3, 5, 4), ClassShare(3, 5, 4)
    first.update(gamma[:, :cut], shares[:cut], epochs[:cut])
    second.update(gamma[:, cut:], shares[cut:], epochs[cut:])
    np.testing.assert_allclose(first.merge(second).sums, expected, rtol=0, atol=1e-12)
    credited = np.array([len(step) > 0 for step in labels])
    np.testing.assert_allclose(first.sums.sum(axis=(1, 2)), gamma[:, credited].sum(axis=1))


def test_class_share_refuses_what_does_not_fit() -> None:
    share, none = ClassShare(2, 3, 1), np.zeros(1, np.int64)
    with pytest.raises(ValueError, match=r"expected shapes \(2, t\) and \(t, 3\), found \(2, 1\) and \(2, 3\)"):
        share.update(np.zeros((2, 1)), np.zeros((2, 3)), none)
    with pytest.raises(ValueError, match=r"epochs: expected 0\.\.0, found 1\.\.1"):
        share.update(np.zeros((2, 1)), np.zeros((1, 3)), none + 1)
    with pytest.raises(ValueError, match=r"labels\[0\]: expected 0\.\.2, found 3\.\.3"):
        shares_of_classes([np.array([3])], 3)
    with pytest.raises(ValueError, match=r"merge: expected shape \(2, 3, 1\), found \(2, 3, 2\)"):
        share.merge(ClassShare(2, 3, 2))
