"""The pre-activation ResNet with group norm whose ten epochs on MNIST lie in `data/snapshots`, for question 3.

In a config: `model: benchmarks.mnist_resnet:mnist_resnet`, `preprocessing: {mode: L, resize: 32, mean: [0.5],
std: [0.5]}`.
"""

from torch import Tensor, nn
from torch.nn import functional as F

GROUPS = 32


class _Block(nn.Module):
    """Norm, ReLU, convolution, twice; the shortcut projects the normalised input."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(GROUPS, n_in), nn.GroupNorm(GROUPS, n_out)
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1)
        self.projection = nn.Conv2d(n_in, n_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return maps of `n_out` channels."""
        x = F.relu(self.norm1(x))
        found: Tensor = self.conv2(F.relu(self.norm2(self.conv1(x)))) + self.projection(x)
        return found


class _MnistResNet(nn.Module):
    """A 7 x 7 convolution, a maximum, two blocks, norm, ReLU, mean, linear head; 292 thousand parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 32, 7, stride=2, padding=3)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.residual_blocks = nn.ModuleList([_Block(32, 64, 1), _Block(64, 128, 2)])
        self.norm = nn.GroupNorm(GROUPS, 128)
        self.act = nn.ReLU()
        self.linear = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, 10) of images (n, 1, 32, 32)."""
        x = self.pool(self.conv(x))
        for block in self.residual_blocks:
            x = block(x)
        logits: Tensor = self.linear(self.act(self.norm(x)).mean(dim=(2, 3)))
        return logits


def mnist_resnet() -> nn.Module:
    """Build the network."""
    return _MnistResNet()
