"""Networks split at a layer, by graph and by hooks: head of trunk is the network, and what cannot be cut is named."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.capture import capture_layers, split_at
from tests.tasks.small_networks import EXAMPLE, Residual, Small, seeded


def relu_in_place(x: Tensor) -> Tensor:
    """Work in place without saying so to the graph."""
    F.relu(x, inplace=True)
    return x


@pytest.mark.parametrize("traceable", [True, False])
def test_last_map_is_the_activation_before_pooling(traceable: bool) -> None:
    model = seeded(lambda: Small(traceable=traceable))
    assert isinstance(model, Small)
    split = split_at(model, "last-map", EXAMPLE)
    assert (split.shape, split.n_outputs, split.layer) == ((5, 8, 8), 7, "last-map")
    assert split.place == ("relu in act" if traceable else "act")
    with torch.no_grad():
        expected = torch.relu(model.conv2(torch.relu(model.bn1(model.conv1(EXAMPLE)))))
        torch.testing.assert_close(split.trunk(EXAMPLE), expected, rtol=0, atol=0)


@pytest.mark.parametrize("traceable", [True, False])
@pytest.mark.parametrize("layer", ["last-map", "penultimate", "bn1", "conv2", "pool"])
@pytest.mark.parametrize("relu", [F.relu, relu_in_place])
def test_head_of_trunk_is_the_network_for_any_batch_size(layer: str, relu: object, traceable: bool) -> None:
    model = seeded(lambda: Small(relu, traceable=traceable))  # type: ignore[arg-type]  # both fit
    split = split_at(model, layer, EXAMPLE)
    for n in (1, 2, 5):
        x = torch.rand((n, 3, 8, 8))
        with torch.inference_mode():
            maps = split.trunk(x)
            before = maps.clone()
            torch.testing.assert_close(split.head(maps), model(x), rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(maps, before, rtol=0, atol=0)  # the head leaves its input alone


@pytest.mark.parametrize("traceable", [True, False])
def test_penultimate_is_the_input_of_the_last_linear(traceable: bool) -> None:
    model = seeded(lambda: Small(traceable=traceable))
    split = split_at(model, "penultimate", EXAMPLE)
    assert split.shape == (5,)
    with torch.no_grad():
        logits = split.trunk(EXAMPLE) @ model.get_parameter("fc.weight").T + model.get_parameter("fc.bias")
        torch.testing.assert_close(logits, model(EXAMPLE), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("traceable", [True, False])
def test_a_module_called_often_counts_at_its_last_call(traceable: bool) -> None:
    model = seeded(lambda: Residual(traceable=traceable))
    split, last = split_at(model, "relu", EXAMPLE), split_at(model, "last-map", EXAMPLE)
    with torch.inference_mode():
        maps = split.trunk(EXAMPLE)
        torch.testing.assert_close(maps, last.trunk(EXAMPLE), rtol=0, atol=0)
        torch.testing.assert_close(maps.mean((2, 3)), split_at(model, "penultimate", EXAMPLE).trunk(EXAMPLE))


@pytest.mark.parametrize("traceable", [True, False])
def test_a_layer_with_a_way_around_is_refused(traceable: bool) -> None:
    model = seeded(lambda: Residual(traceable=traceable))
    with pytest.raises(ValueError, match=r"layer 'body': expected a layer that every .* \(logits differ by up to"):
        split_at(model, "body", EXAMPLE)


def test_parts_share_the_parameters() -> None:
    model = seeded(Small)
    split = split_at(model, "last-map", EXAMPLE)
    with torch.no_grad():
        model.get_parameter("fc.bias").add_(1)
        torch.testing.assert_close(split.head(split.trunk(EXAMPLE)), model(EXAMPLE), rtol=0, atol=0)


def test_bad_layers_are_named() -> None:
    model = seeded(Small)
    with pytest.raises(
        ValueError, match=r"layer 'conv3': expected a module, found none; close: conv[12], conv[12].*; or last-map, pen"
    ):
        split_at(model, "conv3", EXAMPLE)
    with pytest.raises(ValueError, match=r"layer 'fc': expected maps \(n, d, h, w\), .* for 3 images, found \(3, 7\)"):
        split_at(model, "fc", EXAMPLE)
    with pytest.raises(ValueError, match="module 'unused': expected a call in the network's forward, found none"):
        split_at(model, "unused", EXAMPLE)


class Wrapped(nn.Module):
    """Passes an input through a module and a function."""

    def __init__(self, inner: nn.Module, then: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.inner = inner
        self.then = then

    def forward(self, x: Tensor) -> object:
        """Return anything."""
        return self.then(self.inner(x))


@pytest.mark.parametrize(
    ("then", "message"),
    [
        (lambda maps: maps, r"model: expected logits \(n, classes\) for 3 images, found shape \(3, 4, 8, 8\)"),
        (lambda maps: (maps, maps), "for 3 images, found tuple"),
        (lambda maps: maps.mean((0, 2, 3))[None], r"for 3 images, found shape \(1, 4\)"),
        (
            lambda maps: maps.mean((2, 3)) / 0 * 0,
            "expected finite logits, found NaN or infinity; check weights and prep",
        ),
    ],
)
def test_what_is_no_classifier_is_refused(then: Callable[[Tensor], object], message: str) -> None:
    model = seeded(lambda: Wrapped(nn.Conv2d(3, 4, 3, padding=1), then))
    with pytest.raises(ValueError, match=message):
        split_at(model, "last-map", EXAMPLE)


def test_training_mode_is_refused() -> None:
    model = seeded(Small)
    model.get_submodule("bn1").train()
    with pytest.raises(
        ValueError, match=r"model: expected evaluation mode, found training mode; call model.eval\(\) first"
    ):
        split_at(model, "last-map", EXAMPLE)


@pytest.mark.parametrize(
    ("traceable", "found"), [(True, "with a linear layer, found none"), (False, "that calls nn.Linear, found no call")]
)
def test_a_network_without_linear_layer_has_no_penultimate(traceable: bool, found: str) -> None:
    model = seeded(
        lambda: Wrapped(nn.Conv2d(3, 4, 3), lambda maps: (traceable or bool(maps.sum())) and maps.mean((2, 3)))
    )
    with pytest.raises(ValueError, match=f"layer 'penultimate': .*network {found}"):
        split_at(model, "penultimate", EXAMPLE)


def test_a_network_without_maps_has_no_last_map() -> None:
    model = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.ReLU(), nn.Linear(4, 2)))
    with pytest.raises(
        ValueError, match=r"layer 'last-map': expected a module whose output is a map .* it has no maps"
    ):
        split_at(model, "last-map", EXAMPLE)


class Tuples(nn.Module):
    """A layer with two outputs."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the input twice."""
        return x, x


@pytest.mark.parametrize("traceable", [True, False])
def test_a_layer_that_puts_out_no_tensor_is_named(traceable: bool) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.two = Tuples()

        def forward(self, x: Tensor) -> Tensor:
            if not traceable and float(x.sum()) < 0:
                return x
            return self.two(x)[0].mean((2, 3))  # type: ignore[no-any-return]  # nn.Module returns Any

    model = seeded(Two)
    with pytest.raises(ValueError, match=r"layer 'two': expected maps .* found \('tuple',\)"):
        split_at(model, "two", EXAMPLE)
    with pytest.raises(ValueError, match="layer 'two': expected a tensor as output, found a tuple"):
        capture_layers(model, ["two"], EXAMPLE)


def test_calls_that_depend_on_values_are_refused() -> None:
    class Sometimes(Small):
        def forward(self, x: Tensor) -> Tensor:
            x = self.act(self.conv1(x)) if float(x.mean()) > 10 else self.act(self.act(self.conv1(x)))
            return x.mean((2, 3))

    model = seeded(Sometimes)
    split = split_at(model, "act", EXAMPLE)
    with pytest.raises(ValueError, match="module 'act': expected 2 calls for every input, found fewer for some inputs"):
        split.trunk(EXAMPLE + 100)
