"""Clipping against torch's."""

import pytest
import torch
from torch import nn

from tasks.training.clipping import clip_gradients


@pytest.mark.parametrize("max_norm", [0.5, 5.0, 50.0])
def test_gradients_are_shortened_as_torch_does(max_norm: float) -> None:
    gradients = [torch.tensor([3.0, 4.0]), torch.tensor([[12.0]]), None]
    ours, theirs = (
        [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1, 1)), nn.Parameter(torch.zeros(1))] for _ in "ab"
    )
    for parameters in (ours, theirs):
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = None if gradient is None else gradient.clone()
    factor = clip_gradients(ours, max_norm)
    torch.nn.utils.clip_grad_norm_(theirs, max_norm, foreach=False)
    assert factor == pytest.approx(min(1.0, max_norm / 13), rel=1e-6)
    for a, b in zip(ours[:2], theirs[:2], strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    if max_norm > 13:
        assert torch.equal(ours[0].grad if ours[0].grad is not None else torch.zeros(0), torch.tensor([3.0, 4.0]))
