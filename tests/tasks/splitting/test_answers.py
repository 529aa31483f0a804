"""Networks whose answer to an image is not the image's own: random ones, and those that mix the images of a batch."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.capture import split_at
from tasks.splitting.answers import check_answers
from tests.tasks.small_networks import EXAMPLE, Residual, Small, seeded

RANDOM, BATCH = "the network is random in evaluation mode", "the network's answer to an image depends on the batch"


class Between(nn.Module):
    """Convolution, ReLU, mean, linear, with a function of the images before and one of the maps between."""

    def __init__(self, before: Callable[[Tensor], Tensor], between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.before, self.between = before, between
        self.conv, self.act, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Linear(4, 7)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = self.act(self.conv(self.before(x)))
        logits: Tensor = self.fc(self.between(x).mean((2, 3)))
        return logits


def same(x: Tensor) -> Tensor:
    """Return the input."""
    return x


def rarely(x: Tensor) -> Tensor:
    """Drop one value of a thousand."""
    return F.dropout(x, 0.001)


def by_numpy(x: Tensor) -> Tensor:
    """Scale by a number that NumPy draws."""
    return x * float(np.random.random())  # the generator that other people's code uses


def noisy(x: Tensor) -> Tensor:
    """Add noise."""
    return x + 0.1 * torch.randn_like(x)


@pytest.mark.parametrize("between", [F.dropout, F.dropout2d, rarely, by_numpy, noisy, nn.Dropout(0.2).forward])
@pytest.mark.parametrize("layer", ["last-map", "penultimate", "act"])
def test_a_random_network_is_named(between: Callable[[Tensor], Tensor], layer: str) -> None:
    with pytest.raises(ValueError, match=RANDOM):
        split_at(seeded(lambda: Between(same, between)), layer, EXAMPLE)


def test_draws_that_change_nothing_are_fine() -> None:
    def fixed(x: Tensor) -> Tensor:
        noise = torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(3))
        torch.rand(1)
        return x + noise

    check_answers(lambda images: {"logits": fixed(images)}, EXAMPLE)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x - x.mean(),
        lambda x: x / x.amax(),
        lambda x: F.batch_norm(x, None, None, training=True),
        lambda x: x - x.mean(0, keepdim=True),
        lambda x: x.softmax(0),
        lambda x: x.flip(0),
    ],
)
@pytest.mark.parametrize("at", ["images", "maps"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_network_that_mixes_images_is_named(function: Callable[[Tensor], Tensor], at: str, n: int) -> None:
    model = seeded(lambda: Between(*((function, same) if at == "images" else (same, function))))
    with pytest.raises(ValueError, match=BATCH):
        split_at(model, "act", EXAMPLE[:n])


def test_batch_norm_without_running_statistics_is_named() -> None:
    model = seeded(Small)
    model.set_submodule("bn1", nn.BatchNorm2d(4, track_running_stats=False).eval())
    with pytest.raises(ValueError, match=rf"{BATCH}: .* \(logits by up to .*\); use running statistics in batch norm"):
        split_at(model, "last-map", EXAMPLE)


def test_mixing_that_shows_in_maps_only_is_named() -> None:
    def normalised(maps: Tensor) -> Tensor:
        return F.layer_norm(maps, maps.shape[1:])

    class Shifted(Between):
        def __init__(self) -> None:
            super().__init__(same, normalised)
            self.shifted = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            x = self.shifted(self.act(self.conv(x)) - x.mean())  # the norm takes this shift back
            logits: Tensor = self.fc(self.between(x).flatten(1)[:, :4])
            return logits

    model = seeded(Shifted)
    check_answers(lambda images: {"logits": model(images)}, EXAMPLE)
    with pytest.raises(ValueError, match=rf"{BATCH}: .* \(layer 'shifted' by up to"):
        split_at(model, "shifted", EXAMPLE)


def test_mixing_that_real_images_show_is_named() -> None:
    def bright(x: Tensor) -> Tensor:
        return x - (x - 1).clamp(min=0).amax()

    model = seeded(lambda: Between(bright, same))
    split_at(model, "act", EXAMPLE)  # no pixel is above 1
    with pytest.raises(ValueError, match=BATCH):
        split_at(model, "act", torch.cat([EXAMPLE, 5 * EXAMPLE]))


@pytest.mark.parametrize("build", [Small, Residual, lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 5))])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_rounding_is_no_difference(build: Callable[[], nn.Module], scale: float) -> None:
    model = seeded(build)
    check_answers(lambda images: {"logits": model(images)}, scale * EXAMPLE.repeat(20, 1, 1, 1))


def test_answers_without_an_axis_of_images_are_named() -> None:
    with pytest.raises(ValueError, match=r"layer: expected \(n, ...\) for 4 images, found shape \(16, 3, 8, 2\)"):
        check_answers(lambda images: {"layer": images.reshape(-1, 3, 8, 2)}, EXAMPLE)


def test_values_that_are_not_finite_equal_themselves() -> None:
    def ratio(images: Tensor) -> dict[str, Tensor]:
        return {"logits": images.mean((2, 3)) / (images.mean((2, 3)) > 0)}

    dark = EXAMPLE.clone()
    dark[1] = 0  # 0 / 0
    check_answers(ratio, dark)
    split_at(
        seeded(lambda: Between(lambda x: x / (x.amax((1, 2, 3), keepdim=True) > 0), same)), "act", EXAMPLE, images=dark
    )
    with pytest.raises(ValueError, match=BATCH):
        check_answers(lambda images: {"logits": images[:, 0, 0] / (images.sum() > 80)}, EXAMPLE)
