"""The MLP and VGG-16 for CIFAR."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tasks.capture import split_at
from tasks.io.models import OWN
from tasks.io.networks import build_model


@pytest.mark.parametrize(("bias", "n_parameters"), [(True, 64 * 32 + 32 + 32 * 10 + 10), (False, 64 * 32 + 32 * 10)])
def test_an_mlp_is_its_layers_with_relu_between(bias: bool, n_parameters: int) -> None:
    model = build_model("mlp", {"sizes": [64, 32, 10], "bias": bias}, 0)
    assert sum(p.numel() for p in model.parameters()) == n_parameters
    inputs = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    first, second = (m for m in model.modules() if isinstance(m, nn.Linear))
    assert (first.bias is None) is not bias
    hidden = F.linear(inputs.reshape(3, 64), first.weight, first.bias).clamp(min=0)
    torch.testing.assert_close(model(inputs), F.linear(hidden, second.weight, second.bias))


def test_an_mlp_without_hidden_units_is_linear() -> None:
    model = build_model("mlp", {"sizes": [6, 2]}, 0)
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(2 * x) - model(torch.zeros(1, 6)), 2 * (model(x) - model(torch.zeros(1, 6))))


@pytest.mark.parametrize("sizes", [[], [10], [64, 0, 10]])
def test_bad_sizes_are_named(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match=r"model 'mlp' with arguments .*: sizes: expected inputs, hidden units"):
        build_model("mlp", {"sizes": sizes}, 0)


def test_vgg16_has_the_papers_size() -> None:
    with torch.device("meta"):
        model = build_model("cifar-vgg16", {}, 0)
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    convolutions = 9 * (3 * 64 + 64 * 64 + 64 * 128 + 128**2 + 128 * 256 + 2 * 256**2 + 256 * 512 + 5 * 512**2)
    linear = 512 * 4096 + 4096 * 4096 + 4096 * 10
    assert sum(w.numel() for w in weights) == convolutions + linear == 33_625_792
    state = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    assert state / 2**20 == pytest.approx(129, rel=0.01)  # MB, table 1 of the paper
    assert sum(isinstance(m, nn.Conv2d) for m in model.modules()) == 13
    assert sum(isinstance(m, nn.Linear) for m in model.modules()) == 3
    assert all(m.bias is None for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear))


def test_vgg16_halves_the_map_five_times_and_scales_by_width() -> None:
    arguments = {"width": 0.125, "classes": 7, "channels": 1}
    model = build_model("cifar-vgg16", arguments, 0).eval()
    inputs = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert model(inputs).shape == (2, 7)
    widths = [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert widths == [8, 8, 16, 16, 32, 32, 32, *[64] * 6]
    assert [m.out_features for m in model.modules() if isinstance(m, nn.Linear)] == [512, 512, 7]
    maps = split_at(model, "last-map", inputs).trunk(inputs)
    assert maps.shape == (2, 64, 2, 2)
    assert bool((maps >= 0).all())


def test_a_width_of_nothing_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"model 'cifar-vgg16' with arguments .*: width: expected a factor above 0, found 0"
    ):
        build_model("cifar-vgg16", {"width": 0}, 0)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *(("small-cnn", {key: 0}) for key in ("channels", "classes", "width")),
        *(("cifar-vgg16", {key: 0}) for key in ("channels", "classes")),
        ("cifar-resnet20", {"classes": 0}),
    ],
)
def test_sizes_below_one_are_refused(name: str, arguments: dict[str, int]) -> None:
    (key,) = arguments
    with pytest.raises(ValueError, match=f"{key}: expected at least 1, found 0"):
        OWN[name](**arguments)
