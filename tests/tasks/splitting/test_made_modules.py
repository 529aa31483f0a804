"""Modules that a forward makes, slices or lists: the network is cut all the same."""

import pytest
import torch
from torch import Tensor, nn

from tasks.capture import split_at
from tests.tasks.small_networks import EXAMPLE, seeded


class Parts(nn.Module):
    """Six layers in a row and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Sequential(
            *(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3, padding=1)),
            *(nn.ReLU(), nn.MaxPool2d(2)),
        )
        self.fc = nn.Linear(5, 7)

    def features(self, x: Tensor) -> Tensor:
        """Return pooled maps."""
        return self.f(x)  # type: ignore[no-any-return]  # nn.Module returns Any

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.fc(self.features(x).mean((2, 3)))
        return logits


class Made(Parts):
    """Makes its activations."""

    def features(self, x: Tensor) -> Tensor:
        x = nn.ReLU()(self.f[1](self.f[0](x)))
        return nn.MaxPool2d(2)(nn.ReLU(inplace=True)(self.f[3](x)))  # type: ignore[no-any-return]  # as above


class Sliced(Parts):
    """Runs slices."""

    def features(self, x: Tensor) -> Tensor:
        return self.f[3:](self.f[1:3](self.f[:1](x)))  # type: ignore[no-any-return]  # as above


class Listed(Parts):
    """Runs a list of own and new modules."""

    def features(self, x: Tensor) -> Tensor:
        for module in [self.f[:2], nn.ReLU(), self.f[3], nn.Sequential(nn.Identity(), nn.ReLU()), self.f[5]]:
            x = module(x)
        return x


class Doubtful(Sliced):
    """Runs slices, and cannot be traced: the second method of cutting takes over."""

    def features(self, x: Tensor) -> Tensor:
        return super().features(x if float(x.abs().sum()) >= 0 else -x)


class Odd(Parts):
    """Raises an error of its own where it is traced."""

    def features(self, x: Tensor) -> Tensor:
        if not isinstance(x, Tensor):
            raise ZeroDivisionError
        return super().features(x)


@pytest.mark.parametrize("build", [Made, Sliced, Listed, Doubtful, Odd])
@pytest.mark.parametrize("layer", ["last-map", "penultimate", "f.3", "f.1"])
def test_a_network_that_makes_modules_is_cut(build: type[Parts], layer: str) -> None:
    plain, model = seeded(Parts), seeded(build)
    expected, split = split_at(plain, layer, EXAMPLE), split_at(model, layer, EXAMPLE)
    x = torch.rand((5, 3, 8, 8))
    with torch.inference_mode():
        maps = split.trunk(x)
        torch.testing.assert_close(maps, expected.trunk(x), rtol=0, atol=0)
        torch.testing.assert_close(split.head(maps), plain(x), rtol=1e-6, atol=1e-6)


def test_a_made_layer_with_weights_of_its_own_is_random() -> None:
    class Fresh(Parts):
        def features(self, x: Tensor) -> Tensor:
            return nn.Conv2d(3, 5, 3)(x)  # type: ignore[no-any-return]  # as above

    with pytest.raises(ValueError, match="the network is random in evaluation mode"):
        split_at(seeded(Fresh), "penultimate", EXAMPLE)


def test_a_made_dropout_is_random() -> None:
    class Dropping(Parts):
        def features(self, x: Tensor) -> Tensor:
            return nn.Dropout(0.5)(self.f(x))  # type: ignore[no-any-return]  # as above; it is in training mode

    with pytest.raises(ValueError, match="the network is random in evaluation mode"):
        split_at(seeded(Dropping), "penultimate", EXAMPLE)
