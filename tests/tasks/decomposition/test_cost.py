"""What networks and heads cost, against sums by hand."""

import torch
from torch import Tensor, nn

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


class Attending(nn.Module):
    """Self-attention over 7 tokens of 8 values, then a head on the first."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.attention(x, x, x, need_weights=False)[0][:, 0])
        return logits


def test_attention_projects_too() -> None:
    model = Attending().eval()
    before = torch.backends.mha.get_fastpath_enabled()
    cost = count_multiply_adds(model, model.head, torch.randn(2, 7, 8))
    assert cost.depth == 3
    projections = 4 * 7 * 8 * 8
    assert projections + 24 <= cost.total <= projections + 24 + 2 * 7 * 7 * 8  # where the products are counted
    assert torch.backends.mha.get_fastpath_enabled() == before


def test_layers_of_any_kind_are_timed() -> None:
    slow, fast = nn.Linear(512, 2048), nn.Linear(512, 1)
    times = time_heads([slow.eval(), fast.eval()], 64, 512)
    assert len(times) == 2
    assert all(milliseconds > 0 for milliseconds in times)
