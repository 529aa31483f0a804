"""ReLU calls of every form are seen in order, and their units can be zeroed."""

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.capture import split_at
from tasks.splitting.relus import relu_maps, zeroed


class Forms(nn.Module):
    """A network with a ReLU of every form, and functions that are not ReLUs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again = nn.ReLU(), nn.ReLU(inplace=True)
        self.six = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x - 0.1)
        x = self.again(x - 0.1)
        x = self.first(x - 0.1)  # a module that is called twice
        x = F.relu(x - 0.1)
        x = F.relu(x - 0.1, inplace=True)
        x = torch.relu(x - 0.1)
        x = (x - 0.1).relu()
        x = (x - 0.1).relu_()
        x = self.six(7 * x - 0.1)
        x = F.relu6(x - 0.1)
        x = F.leaky_relu(F.hardtanh(x, -1, 1) + 1).clamp(min=0)
        return F.relu(x.mean(dim=(2, 3)) - 0.1)


def test_every_form_is_seen_once_and_in_order() -> None:
    x = torch.rand(2, 3, 4, 5) + 2
    found = relu_maps(Forms(), x.clone())
    expected, steps = [], x.clone()
    for number in range(10):
        steps = (7 * steps if number == 8 else steps) - 0.1
        steps = steps.clamp(0, 6) if number >= 8 else steps.clamp(min=0)
        expected.append(steps)
    last = F.leaky_relu(steps.clamp(-1, 1) + 1).clamp(min=0).mean(dim=(2, 3)) - 0.1
    assert len(found) == 11
    for one, other in zip(found, [*expected, last[:, :, None, None]], strict=True):
        torch.testing.assert_close(one, other)


def small() -> nn.Sequential:
    """Return a network of two convolutions, the second ReLU in place."""
    torch.manual_seed(0)
    parts = (nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(inplace=True))
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)).eval()


def test_the_trunk_of_a_split_network_has_its_relus() -> None:
    model, images = small(), torch.rand(6, 1, 8, 8)
    split = split_at(model, "last-map", images)
    found = relu_maps(split.trunk, images)
    with torch.inference_mode():
        torch.testing.assert_close(found[0], model[1](model[0](images)))
        torch.testing.assert_close(found[1], split.trunk(images))
    assert len(found) == 2


@pytest.mark.parametrize("units", [{}, {0: [1]}, {1: [0, 4]}, {0: [0, 2], 1: [3]}])
def test_zeroed_units_are_those_of_masks_by_hand(units: dict[int, list[int]]) -> None:
    model, images = small(), torch.rand(6, 1, 8, 8)
    masks = [torch.ones(4, 1, 1), torch.ones(5, 1, 1)]
    for number, channels in units.items():
        masks[number][channels] = 0
    with torch.inference_mode():
        expected = model[4:](model[2](model[0](images).relu() * masks[0]).relu() * masks[1])
        torch.testing.assert_close(zeroed(model, images, units), expected)
        torch.testing.assert_close(model(images), model(images.clone()))  # nothing stays behind


def test_resnet_50_has_the_units_of_the_paper() -> None:
    with torch.inference_mode():
        found = relu_maps(torchvision.models.resnet50().eval(), torch.rand(1, 3, 32, 32))
    assert (len(found), sum(maps.shape[1] for maps in found)) == (49, 22_720)


def test_networks_without_relus_and_odd_outputs_are_named() -> None:
    with pytest.raises(ValueError, match="expected at least one ReLU up to the layer, found none; VEBI selects"):
        relu_maps(nn.Sequential(nn.Conv2d(1, 2, 3), nn.GELU()), torch.ones(1, 1, 4, 4))
    with pytest.raises(
        ValueError,
        match=r"ReLU call 0: expected channels on axis 1 or on the last, .* an unknown axis .*\(n, 4, 4, 2\)",
    ):
        relu_maps(lambda x: torch.fft.fft(x.permute(0, 2, 3, 1)).real.relu(), torch.ones(1, 2, 4, 4))
    deep = nn.Sequential(nn.Unflatten(1, (1, 2)), nn.Conv3d(1, 3, 1), nn.ReLU())
    with pytest.raises(ValueError, match=r"ReLU call 0: expected vectors, tokens or maps, found .*\(1, 3, 2, 4, 4\)"):
        relu_maps(deep, torch.ones(1, 2, 4, 4))


class Mixed(nn.Module):
    """A network with ReLUs of maps with channels first and last, of tokens, of rows and of vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last, self.row = nn.Conv2d(1, 5, 3), nn.Linear(5, 5), nn.Conv1d(5, 5, 1)
        self.tokens, self.end = nn.Linear(5, 5), nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.steps(x)[-1]

    def steps(self, x: Tensor, masks: tuple[Tensor, ...] = (torch.ones(5),) * 5) -> list[Tensor]:
        """Return the outputs of the ReLUs in the network's layouts, channels multiplied by masks (5,)."""
        one = F.relu(self.conv(x)) * masks[0][:, None, None]
        two = F.relu(self.last(one.permute(0, 2, 3, 1))) * masks[1]
        three = F.relu(self.row(two.flatten(1, 2).transpose(1, 2))) * masks[2][:, None]
        four = F.relu(self.tokens(three.transpose(1, 2)) + 1) * masks[3]
        return [one, two, three, four, F.relu(self.end(four.mean(dim=1)) + 1) * masks[4]]


def test_units_of_any_layout_are_channels() -> None:
    torch.manual_seed(1)
    net, images = Mixed().eval(), torch.rand(3, 1, 7, 7)  # five channels, and five rows and columns after the layer
    with torch.inference_mode():
        one, two, three, four, five = net.steps(images)
        expected = [one, two.permute(0, 3, 1, 2), three[:, :, None], four.transpose(1, 2)[:, :, None]]
        for found, wanted in zip(relu_maps(net, images), [*expected, five[:, :, None, None]], strict=True):
            torch.testing.assert_close(found, wanted)
        for call in range(5):
            masks = [torch.ones(5) for _ in range(5)]
            masks[call][[1, 4]] = 0
            by_hand = net.steps(images, tuple(masks))[-1]
            assert not torch.equal(by_hand, five)
            torch.testing.assert_close(zeroed(net, images, {call: [1, 4]}), by_hand)
