"""Statements that change a tensor in place, on the input or in the middle: no cut loses them, no caller sees them."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.capture import capture_batch, capture_inputs, capture_layers, find_output_layer, split_at
from tests.tasks.small_networks import seeded

# The first image stays below 1, where a limit changes nothing; the others do not.
IMAGES = (
    torch.rand((4, 3, 8, 8), generator=torch.Generator().manual_seed(1))
    * torch.tensor([0.9, 6, 9, 3])[:, None, None, None]
)
MEAN = torch.tensor([3.0, 2.0, 1.0])[:, None, None]


class Changing(nn.Module):
    """Convolution, ReLU, max pool, linear, with a statement on the input and one on the convolution's output."""

    def __init__(self, first: Callable[[Tensor], object], second: Callable[[Tensor], object], traceable: bool) -> None:
        super().__init__()
        self.first, self.second, self.traceable = first, second, traceable
        self.conv, self.act, self.fc = nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Linear(5, 7)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        if not self.traceable and float(x.abs().sum()) < 0:
            return x
        self.first(x)
        x = self.conv(x)
        self.second(x)
        x = self.act(x)
        logits: Tensor = self.fc(F.max_pool2d(x, 2).mean((2, 3)))
        return logits


def nothing(x: Tensor) -> None:
    """Change nothing."""


def method(x: Tensor) -> None:
    """Change by a chain of methods."""
    x.sub_(1.5).div_(2.5)


def operators(x: Tensor) -> None:
    """Change by an operator."""
    x -= 1.5
    x /= 2.5


def out(x: Tensor) -> None:
    """Change by the place of a result."""
    torch.sub(x, 1.5, out=x)
    torch.div(x, 2.5, out=x)


def function(x: Tensor) -> None:
    """Change by a function that takes inplace=True."""
    F.leaky_relu(x, -2.0, inplace=True)


def underscored(x: Tensor) -> None:
    """Change by a function of torch."""
    torch.cos_(x)


def view(x: Tensor) -> None:
    """Change a part by its view."""
    x[:, 0].mul_(-3.0)


def item(x: Tensor) -> None:
    """Change a part by assignment."""
    x[:, 1] = x[:, 0] * 2 - 1
    x[x > 1] = 0.5


def channels(x: Tensor) -> None:
    """Change each channel, as normalisations do."""
    for channel, mean in enumerate((3.0, 2.0, 1.0)):
        x[:, channel] -= mean


def data(x: Tensor) -> None:
    """Change the memory behind torch's back."""
    x.data.mul_(2)


def attribute(x: Tensor) -> None:
    """Change the memory behind torch's back, by an operator."""
    x.data -= 1.5


def bright(x: Tensor) -> None:
    """Change bright pixels only, in a way that tracing does not see."""
    x.data -= 0.5 * (x > 1)


def alias(x: Tensor) -> None:
    """Change by two names, in turn."""
    y = x.view(-1)
    y += 1
    z = x.detach()
    z.mul_(0.5)
    y -= 2


def module(x: Tensor) -> None:
    """Change by a module."""
    nn.Hardtanh(0.2, 1.5, inplace=True)(x)


KINDS = (method, operators, out, function, underscored, view, item, channels, data, attribute, bright, alias, module)


def expected_maps(first: Callable[[Tensor], object], second: Callable[[Tensor], object], model: nn.Module) -> Tensor:
    """Return the maps after the ReLU, step by step on copies."""
    x = IMAGES.clone()
    first(x)
    maps: Tensor = model.get_submodule("conv")(x)
    second(maps)
    return maps.relu()


@pytest.mark.parametrize("traceable", [True, False])
@pytest.mark.parametrize("layer", ["last-map", "act", "conv", "penultimate"])
@pytest.mark.parametrize("change", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("at", ["input", "middle", "both"])
def test_no_cut_loses_a_change(change: Callable[[Tensor], object], at: str, layer: str, traceable: bool) -> None:
    first, second = change if at != "middle" else nothing, change if at != "input" else nothing
    model, kept = seeded(lambda: Changing(first, second, traceable)), IMAGES.clone()
    split = split_at(model, layer, IMAGES)
    with torch.no_grad():
        after = expected_maps(first, second, model)
        before = expected_maps(first, nothing, model)
        logits = model(IMAGES.clone())
        expected = {
            "conv": model.get_submodule("conv")(changed(first)),
            "penultimate": F.max_pool2d(after, 2).mean((2, 3)),
        }.get(layer, after)
        maps = split.trunk(IMAGES)
        torch.testing.assert_close(maps, expected, rtol=0, atol=0)
        torch.testing.assert_close(split.head(maps), logits, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(maps, expected, rtol=0, atol=0)  # the head leaves its input alone
        # The change shows, so that a cut without it would have failed.
        assert (
            not torch.allclose(logits, model.get_submodule("fc")(F.max_pool2d(before, 2).mean((2, 3)))) or at == "input"
        )
    torch.testing.assert_close(IMAGES, kept, rtol=0, atol=0)


def changed(change: Callable[[Tensor], object]) -> Tensor:
    """Return the images after a statement."""
    x = IMAGES.clone()
    change(x)
    return x


@pytest.mark.parametrize("change", KINDS, ids=lambda kind: kind.__name__)
def test_no_caller_sees_a_change(change: Callable[[Tensor], object]) -> None:
    model, images = seeded(lambda: Changing(change, nothing, traceable=True)), IMAGES.clone()
    with torch.no_grad():
        logits = model(images.clone()).numpy()
        fed = changed(change)
    split = split_at(model, "last-map", images)
    np.testing.assert_allclose(capture_batch(split, images)[1], logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(capture_layers(model, ["fc"], images)["fc"], logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(capture_inputs(model, ["conv"], images)["conv"], fed, rtol=0, atol=0)
    assert find_output_layer(model, images) == "fc"
    torch.testing.assert_close(images, IMAGES, rtol=0, atol=0)


def test_a_change_that_follows_an_other_is_not_lost() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 5, 3, padding=1), nn.Linear(5, 7)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            y = x.relu_()
            share = y.mean((1, 2, 3))[:, None]
            x.mul_(3.0)  # y is not used any more, x is
            logits: Tensor = self.fc(x.mean((2, 3))) + share
            return logits

    model = seeded(Twice)
    split = split_at(model, "conv", IMAGES)
    with torch.inference_mode():
        torch.testing.assert_close(split.head(split.trunk(IMAGES)), model(IMAGES.clone()), rtol=1e-6, atol=1e-6)


def test_a_blocks_output_is_what_its_call_gave() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            F.relu(x, inplace=True)
            return x

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block, self.fc = Block(), nn.Linear(5, 7)

        def forward(self, x: Tensor) -> Tensor:
            x = self.block(x)
            x *= 2
            logits: Tensor = self.fc(F.max_pool2d(x, 2).mean((2, 3)))
            return logits

    model = seeded(Whole)
    with torch.no_grad():
        maps = model.get_submodule("block.conv")(IMAGES)
        for layer, expected in (("block.conv", maps), ("block", maps.relu())):
            split = split_at(model, layer, IMAGES)
            torch.testing.assert_close(split.trunk(IMAGES), expected, rtol=0, atol=0)
            torch.testing.assert_close(split.head(expected), model(IMAGES.clone()), rtol=1e-6, atol=1e-6)


def test_numbers_are_not_changed_in_place() -> None:
    class Sized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act, self.fc = nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Linear(5, 7)

        def forward(self, x: Tensor) -> Tensor:
            x = self.act(self.conv(x))
            half = whole = x.shape[2]
            half //= 2
            logits: Tensor = self.fc(x[:, :, :half].sum((2, 3)) / whole)
            return logits

    model = seeded(Sized)
    split = split_at(model, "act", IMAGES)
    assert split.place == "relu in act"
    with torch.inference_mode():
        torch.testing.assert_close(split.head(split.trunk(IMAGES)), model(IMAGES.clone()), rtol=1e-6, atol=1e-6)


class Forward(nn.Module):
    """Modules for forwards that change their values in turn."""

    def __init__(self, steps: Callable[["Forward", Tensor], Tensor]) -> None:
        super().__init__()
        self.steps = steps
        self.conv, self.last, self.act = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 5, 3, padding=1), nn.ReLU()
        self.fc = nn.Linear(5, 7)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        return self.steps(self, x)


def chunks(net: Forward, x: Tensor) -> Tensor:
    """Change two of three views of the input."""
    first, second, _ = x.chunk(3, 1)
    first.mul_(2)
    second.sub_(1)
    return net.fc(net.act(net.conv(x)).mean((2, 3)))  # type: ignore[no-any-return]  # nn.Module returns Any


def residual(net: Forward, x: Tensor) -> Tensor:
    """Add a branch in place, and change the branch afterwards."""
    x = net.conv(x)
    y = net.last(x)
    x += y
    y.mul_(3)
    return net.fc(net.act(x).mean((2, 3)) + y.mean((2, 3)))  # type: ignore[no-any-return]  # as above


def logits(net: Forward, x: Tensor) -> Tensor:
    """Change the logits, as a whole and in part."""
    z: Tensor = net.fc(net.act(net.conv(x)).mean((2, 3)))
    z[:, 0] = 0
    z[:, 1].add_(5)
    z -= 1
    return z


def features(net: Forward, x: Tensor) -> Tensor:
    """Change the features in part."""
    x = net.act(net.conv(x)).mean((2, 3))
    x[:, 0].add_(2)
    x[:, 1] = x[:, 2]
    return net.fc(x)  # type: ignore[no-any-return]  # as above


def copied(net: Forward, x: Tensor) -> Tensor:
    """Fill memory of its own, and the input from it."""
    y = torch.empty_like(x)
    y.copy_(x)
    y.add_(1)
    x.copy_(y * y)
    return net.fc(net.act(net.conv(x)).mean((2, 3)))  # type: ignore[no-any-return]  # as above


def numpy(net: Forward, x: Tensor) -> Tensor:
    """Change the input by NumPy."""
    array = x.numpy()
    array -= 1
    return net.fc(net.act(net.conv(x)).mean((2, 3)))  # type: ignore[no-any-return]  # as above


@pytest.mark.parametrize("steps", [chunks, residual, logits, features, copied, numpy], ids=lambda steps: steps.__name__)
@pytest.mark.parametrize("layer", ["penultimate", "conv", "act"])
def test_layers_are_what_a_hook_sees(steps: Callable[[Forward, Tensor], Tensor], layer: str) -> None:
    model, seen = seeded(lambda: Forward(steps)), []
    if layer == "penultimate":
        model.get_submodule("fc").register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
    else:
        model.get_submodule(layer).register_forward_hook(lambda _, given, output: seen.append(output.clone()))
    with torch.inference_mode():
        expected = model(IMAGES.clone())
    [maps] = seen
    if steps is residual and layer == "act":  # the branch passes around it
        with pytest.raises(ValueError, match="expected a layer that every path passes through, found a path around"):
            split_at(model, layer, IMAGES)
        return
    split = split_at(model, layer, IMAGES)
    with torch.inference_mode():
        torch.testing.assert_close(split.trunk(IMAGES), maps, rtol=0, atol=0)
        torch.testing.assert_close(split.head(maps), expected, rtol=1e-6, atol=1e-6)
