"""Where channels are found: own modules in each layout, transformers, and what shows nothing."""

import pytest
import torch
from torch import Tensor, nn

from tasks.capture import capture_batch, capture_layers, run_head, split_at
from tasks.io.networks import build_model
from tasks.splitting.channels import ChannelLayout, LayoutError
from tasks.splitting.outputs import find_layouts
from tasks.splitting.replay import watching
from tasks.splitting.tracking import ChannelTracker
from tests.tasks.layout_networks import (
    FIRST,
    LAST,
    TOKENS,
    UNKNOWN,
    Forward,
    Shaped,
    tiny_convnext,
    tiny_swin,
    tiny_vit,
)
from tests.tasks.small_networks import EXAMPLE, seeded

FIRST_AXIS = frozenset({1})
KNOWN = [
    *(("channels-first", 1, name, forward_of) for name, forward_of in FIRST.items()),
    *(("channels-last", 3, name, forward_of) for name, forward_of in LAST.items()),
    *(("tokens", 2, name, forward_of) for name, forward_of in TOKENS.items()),
]


@pytest.mark.parametrize(("layout", "axis", "name", "forward_of"), KNOWN, ids=[f"{one[0]}: {one[2]}" for one in KNOWN])
def test_a_layers_layout_is_that_of_its_operations(layout: str, axis: int, name: str, forward_of: Forward) -> None:
    model = seeded(lambda: Shaped(forward_of)).requires_grad_(False)
    assert isinstance(model, Shaped)
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            expected = forward_of(model, EXAMPLE)
            found = find_layouts(model, ["layer"], EXAMPLE[:1])["layer"]
        assert found == ChannelLayout(layout, tuple(expected.shape[1:])), name
    captured = capture_layers(model, ["layer"], EXAMPLE)["layer"]
    torch.testing.assert_close(torch.from_numpy(captured), expected.movedim(axis, -1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "forward_of"), UNKNOWN.items(), ids=UNKNOWN)
def test_what_shows_no_layout_is_refused_and_can_be_said(name: str, forward_of: Forward) -> None:
    model = seeded(lambda: Shaped(forward_of)).requires_grad_(False)
    with pytest.raises(
        LayoutError, match=r"^layer 'layer': expected channels on axis 1 or on the last, .*set `layout`"
    ):
        capture_layers(model, ["layer"], EXAMPLE)
    for wanted in ("channels-first", "channels-last"):
        found = find_layouts(model, ["layer"], EXAMPLE[:1], {"layer": wanted})["layer"]
        assert (found.name == "channels-first") == (wanted == "channels-first"), name


def axes_of(model: nn.Module, example: Tensor) -> dict[str, tuple[int, frozenset[int]]]:
    """Return the number of axes and the channels' axes of every module's output that is a tensor."""
    found: dict[str, tuple[int, frozenset[int]]] = {}

    def look(name: str, module: nn.Module, output: object) -> None:
        if isinstance(output, Tensor):
            found[name] = (output.ndim, tracker.axes(output))

    with ChannelTracker(example) as tracker, watching(model.eval().requires_grad_(False), look):
        model(example)
    return found


def test_a_vision_transformer_has_tokens_behind_its_first_convolution() -> None:
    found = axes_of(tiny_vit(), torch.rand(1, 3, 16, 16))
    assert found.pop("conv_proj") == (4, FIRST_AXIS)
    assert found.pop("heads") == found.pop("heads.head") == (2, FIRST_AXIS)
    assert set(found.values()) == {(3, frozenset({2}))}
    assert {"encoder.ln", "encoder.layers.encoder_layer_1.mlp.0", "encoder.dropout"} <= set(found)


def test_swins_maps_have_channels_last_up_to_its_own_permutation() -> None:
    found = axes_of(tiny_swin(), torch.rand(1, 3, 16, 16))
    first = {name for name, one in found.items() if one == (4, FIRST_AXIS)}
    assert first == {"features.0.0", "permute", "avgpool"}
    assert {one for name, one in found.items() if name not in first and one[0] > 2} == {(4, frozenset({3}))}
    assert {"features.1.0.attn", "features.2", "features.3.0.mlp.1", "norm"} <= set(found)


def test_convnexts_maps_have_channels_first_but_within_a_block() -> None:
    found = axes_of(tiny_convnext(), torch.rand(1, 3, 32, 32))
    last = {name.rpartition(".")[2] for name, one in found.items() if one == (4, frozenset({3}))}
    assert last == {"1", "2", "3", "4", "5"}  # from the block's first permutation to before its second
    assert all(".block." in name for name, one in found.items() if one == (4, frozenset({3})))
    assert all(len(axes) == 1 for _, axes in found.values())


@pytest.mark.parametrize(
    ("model", "layer", "layout", "shape"),
    [
        (tiny_vit, "encoder.ln", "tokens", (24, 1, 17)),
        (tiny_vit, "encoder.layers.encoder_layer_0", "tokens", (24, 1, 17)),
        (tiny_swin, "features.1", "channels-last", (8, 8, 8)),
        (tiny_swin, "norm", "channels-last", (16, 4, 4)),
        (tiny_swin, "permute", "channels-first", (16, 4, 4)),
        (tiny_convnext, "features.1", "channels-first", (8, 4, 4)),
    ],
)
def test_heads_take_maps_back_in_any_layout(
    model: type[nn.Module], layer: str, layout: str, shape: tuple[int, ...]
) -> None:
    network = seeded(model)
    images = torch.rand((3, 3, 16, 16), generator=torch.Generator().manual_seed(2))
    split = split_at(network, layer, images)
    assert (split.layout.name, split.shape) == (layout, shape)
    maps, logits = capture_batch(split, images)
    assert maps.shape == (3, *shape[1:], shape[0])
    with torch.inference_mode():
        whole = network(images)
        plain = split.trunk(images)
    torch.testing.assert_close(torch.from_numpy(logits), whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.from_numpy(run_head(split, maps)), whole, rtol=1e-4, atol=1e-5)
    channels = plain.movedim(1, -1) if layout == "channels-first" else plain
    torch.testing.assert_close(torch.from_numpy(maps).flatten(1), channels.flatten(1), rtol=0, atol=0)


class KeepsAxes(nn.Module):
    """Channels last to the end, pooled to one position that stays an axis."""

    def __init__(self, *, traceable: bool) -> None:
        super().__init__()
        self.traceable = traceable
        self.conv, self.act, self.pool, self.fc = nn.Conv2d(3, 5, 2, 2), nn.ReLU(), Mean(), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        if not self.traceable and float(x.sum()) < 0:
            return x
        logits: Tensor = self.fc(self.pool(self.act(self.conv(x).permute(0, 2, 3, 1))).flatten(1))
        return logits


class Mean(nn.Module):
    """Pools maps (n, h, w, d) to (n, 1, 1, d)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return means."""
        return x.mean((1, 2), keepdim=True)


@pytest.mark.parametrize("traceable", [True, False])
def test_the_last_map_with_channels_last_is_the_one_before_pooling(traceable: bool) -> None:
    model = seeded(lambda: KeepsAxes(traceable=traceable))
    split = split_at(model, "last-map", EXAMPLE)
    assert (split.layout.name, split.shape) == ("channels-last", (5, 4, 4))
    assert split.place == ("relu in act" if traceable else "act")


def test_the_config_overrules_the_network() -> None:
    model = seeded(lambda: Shaped(LAST["permuted"])).requires_grad_(False)
    split = split_at(model, "layer", EXAMPLE, layout="channels-first")
    assert split.layout == ChannelLayout("channels-first", (4, 4, 4))
    maps, logits = capture_batch(split, EXAMPLE)
    with torch.inference_mode():
        torch.testing.assert_close(torch.from_numpy(maps), model.map(EXAMPLE).permute(0, 3, 1, 2))  # type: ignore[operator]
    torch.testing.assert_close(run_head(split, maps), logits)


class Sideways(nn.Module):
    """Puts out the images on axis 1."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.layer, self.fc = nn.Linear(8, 4), nn.Identity(), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = self.layer(self.linear(x[:, 0]).transpose(0, 1))
        logits: Tensor = self.fc(x.mean(0))
        return logits


def test_an_output_whose_first_axis_is_not_that_of_the_images_is_refused() -> None:
    with pytest.raises(ValueError, match=r"layer 'layer': expected 1 images on axis 0, found shape \(8, 1, 4\)"):
        find_layouts(Sideways().eval(), ["layer"], EXAMPLE[:1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    [
        *((name, 64) for name in ("alexnet", "densenet121", "efficientnet_b0", "googlenet", "mnasnet0_5", "vgg11_bn")),
        *((name, 64) for name in ("mobilenet_v3_small", "regnet_y_400mf", "resnet18", "resnext50_32x4d")),
        *((name, 64) for name in ("shufflenet_v2_x0_5", "squeezenet1_1", "cifar-resnet20")),
        ("inception_v3", 107),
    ],
)
def test_every_module_of_a_convolutional_network_has_channels_first(name: str, size: int) -> None:
    found = axes_of(build_model(name, {}, 0), torch.rand(1, 3, size, size))
    assert {axes for n_axes, axes in found.values() if n_axes > 2} == {FIRST_AXIS}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "expected"), [("vit_b_32", 224, {1, 2}), ("swin_t", 64, {1, 3}), ("maxvit_t", 224, {1, 3})]
)
def test_every_module_of_a_transformer_has_its_channels_on_one_axis(name: str, size: int, expected: set[int]) -> None:
    found = axes_of(build_model(name, {}, 0), torch.rand(1, 3, size, size))
    known = [next(iter(axes)) for n_axes, axes in found.values() if n_axes > 2 and len(axes) == 1]
    assert len(known) == sum(n_axes > 2 for n_axes, _ in found.values())
    assert set(known) == expected
