"""Which operation gives the neurons of a layer, in networks whose answer is known from how they are built."""

from collections.abc import Sequence

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import get_model

from tasks.splitting.channel_sources import channel_operation
from tasks.splitting.outputs import find_layouts


class Residual(nn.Module):
    """Two blocks with an identity path and one with a shortcut of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.one, self.two = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.wide, self.short = nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(4, 6, 1)
        self.end_one, self.end_two = nn.ReLU(), nn.ReLU(inplace=True)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.end_one(self.norm(self.two(torch.relu(self.one(x)))) + x)
        x = self.end_two(self.wide(x) + self.short(x))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class Tokens(nn.Module):
    """A block of an MLP on tokens, with layer normalisation before and after it."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, 6, 4, stride=4)
        self.before, self.after = nn.LayerNorm(6), nn.LayerNorm(6)
        self.up, self.down = nn.Linear(6, 12), nn.Linear(12, 6)
        self.block = nn.Identity()
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cut(x).flatten(2).transpose(1, 2)
        x = self.block(x + self.down(torch.nn.functional.gelu(self.up(self.before(x)))))
        logits: Tensor = self.head(self.after(x).mean(1))
        return logits


class Twice(nn.Module):
    """A convolution that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.end, self.head = nn.ReLU(), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.end(self.again(torch.relu(self.again(self.first(x)))))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class Gated(nn.Module):
    """A convolution and its gate: of its own means (squeeze and excitation), of the input, or of itself."""

    def __init__(self, gate: str) -> None:
        super().__init__()
        self.gate, self.first = gate, nn.Conv2d(3, 4, 3, padding=1)
        self.small, self.large, self.parallel = nn.Linear(4, 2), nn.Linear(2, 4), nn.Conv2d(3, 4, 3, padding=1)
        self.end, self.head = nn.ReLU(), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        if self.gate == "means":
            y = y * torch.sigmoid(self.large(torch.relu(self.small(y.mean((2, 3))))))[:, :, None, None]
        elif self.gate == "input":
            y = y * torch.sigmoid(self.parallel(x))
        else:
            y = y * torch.sigmoid(y)
        logits: Tensor = self.head(self.end(y).mean((2, 3)))
        return logits


def plain() -> nn.Sequential:
    """Return convolutions with batch norm and a ReLU in place, grouped, and a linear head."""
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
        *(nn.Conv2d(4, 8, 3, groups=2), nn.GroupNorm(2, 8), nn.ReLU()),
        *(nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)),
    )


def operation_of(model: nn.Module, layer: str, known: Sequence[str] | None = None, side: int = 8) -> str:
    """Return the operation of a layer on two random images."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)  # type: ignore[arg-type]  # it has one
            nn.init.uniform_(module.weight, -2, 2)
    model = model.eval().requires_grad_(False)
    images = torch.randn(2, 3, side, side)
    with torch.inference_mode():
        layout = find_layouts(model, [layer], images[:1])[layer]
    return channel_operation(model, layer, images, layout, known)


@pytest.mark.parametrize(
    ("layer", "expected"), [("0", "0"), ("1", "0"), ("2", "0"), ("3", "3"), ("6", "6"), ("7", "6")]
)
def test_norm_by_channel_and_activation_keep_the_neurons_of_their_convolution(layer: str, expected: str) -> None:
    assert operation_of(plain(), layer) == expected


@pytest.mark.parametrize("layer", ["4", "5"])
def test_a_norm_over_several_channels_mixes_them(layer: str) -> None:
    with pytest.raises(ValueError, match=f"layer '{layer}': expected neurons that each are a unit of a linear map or"):
        operation_of(plain(), layer)


def test_pooled_channels_and_logits_have_their_operation() -> None:
    assert operation_of(plain(), "9") == "6"
    assert operation_of(plain(), "10") == "10"


def test_a_residual_block_has_the_operation_with_the_most_weights() -> None:
    assert operation_of(Residual(), "end_one") == "two"
    assert operation_of(Residual(), "end_two") == "wide"
    assert operation_of(Residual(), "end_two", ["stem", "short"]) == "short"
    assert operation_of(Residual(), "norm") == "two"


def test_tokens_of_a_block_are_the_units_of_its_last_linear_layer() -> None:
    assert operation_of(Tokens(), "block") == "down"
    with pytest.raises(ValueError, match="found a layer that mixes units"):
        operation_of(Tokens(), "after")


def test_an_operation_without_a_record_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"layer '7': expected recorded updates of its operation '6', found those of 0;"
    ):
        operation_of(plain(), "7", ["0"])


def test_an_operation_that_is_called_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="layer 'end': expected one call of its operation 'again', found 2"):
        operation_of(Twice(), "end")
    assert operation_of(Twice(), "first") == "first"


@pytest.mark.parametrize(("gate", "named"), [("means", "'large'"), ("input", "'parallel' and 'first'")])
def test_a_gate_is_not_what_gives_the_neurons(gate: str, named: str) -> None:
    with pytest.raises(ValueError, match=f"found {named}, whose units something else multiplies"):
        operation_of(Gated(gate), "end")


def test_an_activation_that_multiplies_by_itself_is_no_gate() -> None:
    assert operation_of(Gated("itself"), "end") == "first"


def test_channels_that_are_all_0_do_not_show_their_units() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    nn.init.constant_(model[1].bias, -100.0)  # type: ignore[arg-type]  # it has one
    with pytest.raises(ValueError, match="found a layer that mixes units"):
        operation_of(model, "2")


@pytest.mark.parametrize(
    ("network", "layer", "expected"),
    [
        ("resnet18", "layer2.0", "layer2.0.conv2"),
        ("resnet18", "layer2.1.relu", "layer2.1.conv2"),
        ("vit_b_16", "encoder.layers.encoder_layer_1", "encoder.layers.encoder_layer_1.mlp.3"),
        ("mobilenet_v2", "features.3", "features.3.conv.2"),
    ],
)
def test_blocks_of_known_networks_are_added_up(network: str, layer: str, expected: str) -> None:
    torch.manual_seed(0)
    sizes = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 12, "mlp_dim": 24}
    model = torchvision.models.VisionTransformer(**sizes) if network == "vit_b_16" else get_model(network, weights=None)
    assert operation_of(model, layer, side=32) == expected
