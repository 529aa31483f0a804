"""Two small networks of convolutions, with and without ways around a layer, and images for them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EXAMPLE = torch.rand((3, 3, 8, 8), generator=torch.Generator().manual_seed(1))


class Small(nn.Module):
    """Convolution, batch norm, the given activation, convolution, ReLU, max pool, mean, linear."""

    def __init__(self, relu: Callable[[Tensor], Tensor] = F.relu, *, traceable: bool = True) -> None:
        super().__init__()
        self.relu_function = relu
        self.traceable = traceable
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 5, 3, padding=1)
        self.act = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(5, 7)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        if not self.traceable and float(x.abs().sum()) < 0:  # depends on values, so torch.fx gives up
            return x
        x = self.relu_function(self.bn1(self.conv1(x)))
        x = self.pool(self.act(self.conv2(x)))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class Residual(nn.Module):
    """Two residual blocks; `body` is a branch around which something passes."""

    def __init__(self, *, traceable: bool = True) -> None:
        super().__init__()
        self.traceable = traceable
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.body = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)  # called three times
        self.fc = nn.Linear(4, 6)

    def forward(self, x: Tensor, scale: float = 2.0) -> Tensor:
        """Return logits."""
        if not self.traceable and float(x.abs().sum()) < 0:
            return x
        n = x.shape[0]
        x = self.relu(self.stem(x))
        x = self.relu(x + scale * self.body(x))
        x = self.relu(x + self.body(x))
        logits: Tensor = self.fc(x.mean((2, 3)).view(n, -1))
        return logits


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """Return a network in evaluation mode with seeded weights and uneven batch statistics."""
    torch.manual_seed(0)
    model = build().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            nn.init.normal_(module.running_mean)
    return model
