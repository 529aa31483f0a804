"""Tests of `tasks.capture`: what layers take, and which layer puts out the logits."""

from collections.abc import Callable
from contextlib import ExitStack

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.capture import capture_inputs, find_output_layer
from tasks.decomposition.head import find_head
from tasks.modules.rows import values_of
from tasks.splitting.watching import _own_calls

EXAMPLE = torch.rand((3, 3, 8, 8), generator=torch.Generator().manual_seed(1))


class Small(nn.Module):
    """Convolution, batch norm, ReLU, convolution, max pool, mean, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.pool = nn.Conv2d(4, 5, 3, padding=1), nn.MaxPool2d(2)
        self.fc, self.unused = nn.Linear(5, 7), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = self.pool(F.relu(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class Twice(nn.Module):
    """Calls `body` twice."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 6)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.fc(self.body(F.relu(self.body(x))).mean((2, 3)))
        return logits


@pytest.fixture
def small() -> nn.Module:
    """A network in evaluation mode with uneven batch statistics."""
    torch.manual_seed(0)
    model = Small().eval()
    model.bn1.running_mean = torch.tensor([0.1, -0.2, 0.3, 0.0])
    return model


def test_inputs_are_what_each_module_takes(small: nn.Module) -> None:
    found = capture_inputs(small, ["fc", "conv2", "conv1"], EXAMPLE)
    assert list(found) == ["fc", "conv2", "conv1"]
    with torch.no_grad():
        second = F.relu(small.get_submodule("bn1")(small.get_submodule("conv1")(EXAMPLE)))
        third = F.max_pool2d(F.relu(small.get_submodule("conv2")(second)), 2).mean((2, 3))
        torch.testing.assert_close(found["conv1"], EXAMPLE)
        torch.testing.assert_close(found["conv2"], second)
        torch.testing.assert_close(found["fc"], third)
        torch.testing.assert_close(small.get_submodule("fc")(found["fc"]), small(EXAMPLE))
    assert not any(module._forward_pre_hooks for module in small.modules())


def test_inputs_are_kept_before_what_works_in_place() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.act = nn.Linear(4, 4), nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.first(x)
            x.zero_()
            return self.act(logits)  # type: ignore[no-any-return]  # nn.Module returns Any

    model, x = InPlace(), torch.randn(2, 4)
    expected = x.clone()
    assert torch.equal(values_of(capture_inputs(model, ["first"], x)["first"]), expected)


def test_inputs_that_cannot_be_captured_are_named(small: nn.Module) -> None:
    with pytest.raises(ValueError, match="layer 'nothing': expected a module, found none"):
        capture_inputs(small, ["nothing"], EXAMPLE)
    with pytest.raises(ValueError, match="layer 'unused': expected a call in the network's forward, found none"):
        capture_inputs(small, ["conv1", "unused"], EXAMPLE)
    text = (
        r"^layer 'body': expected one call, found 2, which see maps of their own; name one call, 0 to 1, as LAYER@CALL$"
    )
    with pytest.raises(ValueError, match=text):
        capture_inputs(Twice().eval(), ["body"], EXAMPLE)
    with pytest.raises(ValueError, match=r"^layer 'body@2': expected a call of 0 to 1, found 2$"):
        capture_inputs(Twice().eval(), ["body@2"], EXAMPLE)
    assert not any(module._forward_pre_hooks for module in small.modules())


def test_each_call_has_inputs_of_its_own() -> None:
    model = Twice().eval()
    found = capture_inputs(model, ["body@1", "body@0"], EXAMPLE)
    assert torch.equal(values_of(found["body@0"]), EXAMPLE)
    with torch.no_grad():
        torch.testing.assert_close(found["body@1"], F.relu(model.body(EXAMPLE)))


def test_calls_of_a_linear_layer_lie_side_by_side() -> None:
    class Again(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            first = self.fc(x)
            return self.fc(first.mean(1))  # type: ignore[no-any-return]  # nn.Module returns Any

    model, x = Again().eval(), torch.randn(2, 3, 4)
    found = capture_inputs(model, ["fc", "fc@0", "fc@1"], x)
    assert torch.equal(values_of(found["fc@0"]), x)
    assert found["fc@1"].shape == (2, 4)
    assert torch.equal(values_of(found["fc"]), torch.cat([x, values_of(found["fc@1"])[:, None]], dim=1))


def test_a_layer_of_two_inputs_is_named() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.both = nn.Bilinear(4, 4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.both(x, x)  # type: ignore[no-any-return]  # nn.Module returns Any

    with pytest.raises(ValueError, match="layer 'both': expected one tensor as input, found 2 inputs"):
        capture_inputs(Pair(), ["both"], torch.randn(2, 4))


def test_the_output_layer_is_the_linear_one_whose_output_is_the_networks(small: nn.Module) -> None:
    assert find_output_layer(small, EXAMPLE) == "fc"
    assert find_output_layer(Twice().eval(), EXAMPLE) == "fc"
    plain = nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.ReLU(), nn.Linear(5, 5))
    assert find_output_layer(plain, EXAMPLE) == "3"
    assert find_output_layer(plain.append(nn.Softmax(1)), EXAMPLE) is None  # these are not the logits of a linear layer
    assert find_output_layer(nn.Sequential(nn.Conv2d(3, 4, 8), nn.Flatten()), EXAMPLE) is None


@pytest.mark.parametrize("change", [lambda z: z.sub_(1), lambda z: z[:, 2].mul_(2), lambda z: F.relu(z, inplace=True)])
def test_a_layer_whose_output_is_changed_in_place_does_not_put_out_the_logits(
    change: Callable[[Tensor], object],
) -> None:
    class Changed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(192, 5)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.fc(x.flatten(1))
            change(logits)
            return logits

    model = Changed().eval()
    assert find_output_layer(model, EXAMPLE) is None
    with pytest.raises(ValueError, match=r"expected a network whose output is that of an nn\.Linear, found"):
        find_head(model, EXAMPLE)


def test_inputs_that_all_queries_share_need_an_axis() -> None:
    """Read as queries, three positions of two queries would be three queries."""

    class Placed(nn.Module):
        def __init__(self, axis: bool) -> None:
            super().__init__()
            self.places, self.axis = nn.Linear(1, 4), axis

        def forward(self, x: Tensor) -> Tensor:
            places = torch.arange(3.0)[:, None]
            found: Tensor = x + self.places(places[None] if self.axis else places)
            return found

    x = torch.randn(2, 3, 4)
    found = values_of(capture_inputs(Placed(True).eval(), ["places"], x)["places"])
    assert found.shape == (2, 3, 1)
    with pytest.raises(ValueError, match=r"^layer 'places': expected inputs with an axis of 2 queries, found \(3, 1\)"):
        capture_inputs(Placed(False).eval(), ["places"], x)


def test_the_fused_kernel_is_off_until_the_last_of_overlapping_runs() -> None:
    model = nn.Sequential(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True))
    states = []
    with ExitStack() as first, ExitStack() as second:
        first.enter_context(_own_calls(model))
        second.enter_context(_own_calls(model))
        first.close()
        states.append(torch.backends.mha.get_fastpath_enabled())
        second.close()
    assert [*states, torch.backends.mha.get_fastpath_enabled()] == [False, True]
