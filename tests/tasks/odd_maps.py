"""Networks with one oddity each, on which question 1 must say what it left out."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Odd(nn.Module):
    """A convolution, the layer `layer` and a linear head.

    Parameters
    ----------
    oddity : "negative" (no ReLU, so negative maps), "zero" (all maps are 0), "argmax" (a head without gradients), or
        "" for none
    """

    def __init__(self, oddity: str = "") -> None:
        super().__init__()
        torch.manual_seed(0)  # the seed decides which classes the network predicts
        self.oddity = oddity
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.layer = nn.Identity() if oddity == "negative" else nn.ReLU()
        self.fc = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        maps = self.conv(x)
        maps = self.layer(0 * maps - 1 if self.oddity == "zero" else maps)
        logits: Tensor = self.fc(maps.mean(dim=(2, 3)))
        return F.one_hot(logits.argmax(dim=1), 10).float() if self.oddity == "argmax" else logits
