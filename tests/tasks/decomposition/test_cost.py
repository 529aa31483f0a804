"""What networks and heads cost, against sums by hand."""

import torch
from torch import nn

from tasks.decomposition.cost import count_multiply_adds, time_heads


def test_multiply_adds_by_hand() -> None:
    head = nn.Linear(6, 3)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),  # 5 x 7 positions
        nn.ReLU(),
        nn.Conv2d(4, 6, 1, groups=2, stride=2),  # 3 x 4 positions, 2 channels in for each of 6 out
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        head,
    ).eval()
    cost = count_multiply_adds(model, head, torch.randn(2, 2, 5, 7))
    assert cost.head == 18
    assert cost.total == 4 * 5 * 7 * 2 * 9 + 6 * 3 * 4 * 2 + 18
    assert cost.depth == 3


def test_layers_of_any_kind_are_timed() -> None:
    slow, fast = nn.Linear(512, 2048), nn.Linear(512, 1)
    times = time_heads([slow.eval(), fast.eval()], 64, 512)
    assert len(times) == 2
    assert all(milliseconds > 0 for milliseconds in times)
