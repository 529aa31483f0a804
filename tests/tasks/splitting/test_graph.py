"""Tests of `tasks.splitting.graph` on known networks: where `last-map` and `penultimate` lie."""

import pytest
import torch
from torch import Tensor, nn

from tasks.capture import split_at
from tasks.io.networks import build_model


class Ending(nn.Module):
    """Maps whose last operation before pooling is a sum, or an exchange of axes."""

    def __init__(self, *, exchange: bool) -> None:
        super().__init__()
        self.exchange = exchange
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.block = nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = torch.relu(self.stem(x))
        x = x.permute(0, 1, 3, 2) if self.exchange else x + self.block(x)
        logits: Tensor = self.fc(nn.functional.max_pool2d(x, 2).mean((2, 3)))
        return logits


def test_a_sum_with_a_convolution_in_its_block_is_a_last_map() -> None:
    split = split_at(Ending(exchange=False).eval(), "last-map", torch.rand(2, 3, 8, 8))
    assert (split.place, split.shape) == ("add in the model's own forward", (4, 8, 8))


def test_an_exchange_of_axes_is_no_last_map() -> None:
    message = (
        r"layer 'last-map': expected an activation or .*, found permute in .*, of shape \(4, 8, 8\); name a module"
    )
    with pytest.raises(ValueError, match=message):
        split_at(Ending(exchange=True).eval(), "last-map", torch.rand(2, 3, 8, 8))


@pytest.mark.parametrize(
    ("name", "size", "place", "shape"),
    [
        ("small-cnn", 8, "relu in 8", (64, 4, 4)),
        ("cifar-resnet20", 32, "relu in layer3.2", (64, 8, 8)),
        ("squeezenet1_1", 64, "relu in classifier.2", (1000, 3, 3)),
        ("resnet18", 64, "relu in layer4.1.relu", (512, 2, 2)),
        ("mobilenet_v3_small", 64, "hardswish in features.12.2", (576, 2, 2)),
    ],
)
def test_last_map_of_known_networks(name: str, size: int, place: str, shape: tuple[int, ...]) -> None:
    channels = 1 if name == "small-cnn" else 3
    split = split_at(build_model(name, {}, 0).eval(), "last-map", torch.rand(2, channels, size, size))
    assert (split.place, split.shape) == (place, shape)


def test_squeezenets_last_fire_module_can_be_named() -> None:
    model = build_model("squeezenet1_1", {}, 0).eval()
    assert split_at(model, "features.12", torch.rand(2, 3, 64, 64)).shape == (512, 3, 3)
    with pytest.raises(
        ValueError, match=r"layer 'penultimate': expected .* a linear layer, found none; it ends in flatten"
    ):
        split_at(model, "penultimate", torch.rand(2, 3, 64, 64))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "place", "shape"),
    [
        ("alexnet", 64, "relu in features.11", (256, 3, 3)),
        ("convnext_tiny", 64, "add in features.7.2", (768, 2, 2)),
        ("densenet121", 64, "relu in the model's own forward", (1024, 2, 2)),
        ("efficientnet_b0", 64, "silu in features.8.2", (1280, 2, 2)),
        ("efficientnet_v2_s", 64, "silu in features.7.2", (1280, 2, 2)),
        ("googlenet", 64, "cat in inception5b", (1024, 2, 2)),
        ("inception_v3", 107, "cat in Mixed_7c", (2048, 2, 2)),
        ("mnasnet0_5", 64, "relu in layers.16", (1280, 2, 2)),
        ("mobilenet_v2", 64, "relu6 in features.18.2", (1280, 2, 2)),
        ("regnet_x_400mf", 64, "relu in trunk_output.block4.block4-11.activation", (400, 2, 2)),
        ("regnet_y_400mf", 64, "relu in trunk_output.block4.block4-5.activation", (440, 2, 2)),
        ("resnet50", 64, "relu in layer4.2.relu", (2048, 2, 2)),
        ("resnext50_32x4d", 64, "relu in layer4.2.relu", (2048, 2, 2)),
        ("shufflenet_v2_x0_5", 64, "relu in conv5.2", (1024, 2, 2)),
        ("vgg11", 64, "relu in features.19", (512, 4, 4)),
        ("wide_resnet50_2", 64, "relu in layer4.2.relu", (2048, 2, 2)),
    ],
)
def test_last_map_of_every_torchvision_family(name: str, size: int, place: str, shape: tuple[int, ...]) -> None:
    model = build_model(name, {}, 0).eval()
    split = split_at(model, "last-map", torch.rand(2, 3, size, size))
    assert (split.place, split.shape) == (place, shape)
    assert split_at(model, "penultimate", torch.rand(2, 3, size, size)).n_outputs == 1000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "found"),
    [
        ("swin_t", 64, "the last map before pooling, found permute in permute, of shape .768, 2, 2."),
        ("swin_v2_t", 64, "the last map before pooling, found permute in permute, of shape .768, 2, 2."),
        ("maxvit_t", 224, "the last map before pooling, found reshape in blocks.3.*, of shape .512, 7, 7."),
        ("vit_b_32", 224, "after an activation, found that the last map is that of conv_proj .Conv2d."),
    ],
)
def test_transformers_have_no_last_map_but_a_penultimate_layer(name: str, size: int, found: str) -> None:
    model, example = build_model(name, {}, 0).eval(), torch.rand(2, 3, size, size)
    with pytest.raises(ValueError, match=f"layer 'last-map': .*{found}.*; name a module"):
        split_at(model, "last-map", example)
    assert len(split_at(model, "penultimate", example).shape) == 1
