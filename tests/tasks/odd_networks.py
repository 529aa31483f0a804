"""Networks for images (n, 1, 8, 8) whose state dicts are not what their attributes' names say, or are not float32."""

from typing import Any

import torch
from torch import Tensor, nn


class Net(nn.Module):
    """A convolution and a linear head, 58 weights for 2 classes."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv, self.act, self.pool = nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, classes)."""
        logits: Tensor = self.fc(self.pool(self.act(self.conv(x))).flatten(1))
        return logits


class Versioned(Net):
    """Format 2: before it, the head was called `head` and the gain was stored as its inverse."""

    _version = 2

    def __init__(self, classes: int = 10) -> None:
        super().__init__(classes)
        self.gain = nn.Parameter(torch.full((1,), 4.0))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, classes)."""
        return super().forward(x * self.gain)

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, *rest: Any
    ) -> None:  # Any: torch
        version = local_metadata.get("version")
        if version is None or version < 2:
            for name in ("weight", "bias"):
                if f"{prefix}head.{name}" in state_dict:
                    state_dict[f"{prefix}fc.{name}"] = state_dict.pop(f"{prefix}head.{name}")
            if f"{prefix}gain" in state_dict:
                state_dict[f"{prefix}gain"] = 1 / state_dict[f"{prefix}gain"]
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)


class Hooked(Net):
    """Its state dict calls the head `head`, by hooks, whatever the version."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__(classes)
        self.register_load_state_dict_pre_hook(_to_fc)  # type: ignore[no-untyped-call]  # torch's stub
        self.register_state_dict_post_hook(_to_head)  # type: ignore[no-untyped-call]  # torch's stub


class Owned(nn.Module):
    """All its layers are in an attribute that is called as data-parallel training calls a network."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.module = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), *_head(classes))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, classes)."""
        logits: Tensor = self.module(x)
        return logits


class Tied(Net):
    """Two convolutions share a weight."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__(classes)
        self.one, self.other = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.other.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, classes)."""
        logits: Tensor = self.fc(self.pool(self.act(self.other(self.one(self.conv(x))))).flatten(1))
        return logits


def parallel(classes: int = 10) -> nn.Module:
    """Return a data-parallel network."""
    return nn.DataParallel(Versioned(classes))


def lazy(classes: int = 10) -> nn.Module:
    """Return a network whose layers know their size from the first input."""
    return nn.Sequential(
        *(nn.LazyConv2d(4, 3, padding=1), nn.LazyBatchNorm2d(), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.LazyLinear(classes),
    )


def precise(dtype: str, classes: int = 10) -> nn.Module:
    """Return a network of another precision."""
    found: torch.dtype = getattr(torch, dtype)
    return Net(classes).to(found)


def pooled_norm(classes: int = 10) -> nn.Module:
    """Return a network with batch norm on one value per channel and sample."""
    head = _head(classes)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), *head[:-1], nn.BatchNorm1d(4), head[-1])


def map_norm(classes: int = 10) -> nn.Module:
    """Return a network with batch norm on maps of 8 x 8 values per channel and sample."""
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), *_head(classes))


def flattened(classes: int = 10) -> nn.Module:
    """Return a network of 4 channels and 16 features, of which each is one place of a channel."""
    maps = (nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
    return nn.Sequential(*maps, nn.Flatten(), nn.Linear(16, classes))


def _head(classes: int) -> list[nn.Module]:
    """Return the layers from maps to logits."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)]


def _to_fc(module: nn.Module, state_dict: Any, prefix: str, *rest: Any) -> None:  # Any: torch's hooks
    """Rename the head of a state dict that is loaded."""
    for name in ("weight", "bias"):
        if f"{prefix}head.{name}" in state_dict:
            state_dict[f"{prefix}fc.{name}"] = state_dict.pop(f"{prefix}head.{name}")


def _to_head(module: nn.Module, state_dict: Any, prefix: str, metadata: Any) -> None:  # Any: torch's hooks
    """Rename the head of a state dict that is made."""
    for name in ("weight", "bias"):
        state_dict[f"{prefix}head.{name}"] = state_dict.pop(f"{prefix}fc.{name}")
