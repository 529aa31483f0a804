"""Tests of `tasks.capture`, and of both ways to split on small networks."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.capture import capture_batch, capture_layers, check_finite, run_head, split_at, to_storage_dtype

EXAMPLE = torch.rand((3, 3, 8, 8), generator=torch.Generator().manual_seed(1))
IDS = np.array([11, 22, 33])


class Small(nn.Module):
    """Convolution, batch norm, the given activation, convolution, ReLU, max pool, mean, linear."""

    def __init__(self, relu: Callable[[Tensor], Tensor] = F.relu, *, traceable: bool = True) -> None:
        super().__init__()
        self.relu_function = relu
        self.traceable = traceable
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 5, 3, padding=1)
        self.act = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(5, 7)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        if not self.traceable and float(x.abs().sum()) < 0:  # depends on values, so torch.fx gives up
            return x
        x = self.relu_function(self.bn1(self.conv1(x)))
        x = self.pool(self.act(self.conv2(x)))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


class Residual(nn.Module):
    """Two residual blocks; `body` is a branch around which something passes."""

    def __init__(self, *, traceable: bool = True) -> None:
        super().__init__()
        self.traceable = traceable
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.body = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)  # called three times
        self.fc = nn.Linear(4, 6)

    def forward(self, x: Tensor, scale: float = 2.0) -> Tensor:
        """Return logits."""
        if not self.traceable and float(x.abs().sum()) < 0:
            return x
        n = x.shape[0]
        x = self.relu(self.stem(x))
        x = self.relu(x + scale * self.body(x))
        x = self.relu(x + self.body(x))
        logits: Tensor = self.fc(x.mean((2, 3)).view(n, -1))
        return logits


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """Return a network in evaluation mode with seeded weights and uneven batch statistics."""
    torch.manual_seed(0)
    model = build().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            nn.init.normal_(module.running_mean)
    return model


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
    with pytest.raises(ValueError, match=r"layer 'body': the network cannot be cut there, .* \(logits differ by up to"):
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
        ValueError, match=r"layer 'conv3': no such module; close: conv[12], conv[12].*; or last-map, pen"
    ):
        split_at(model, "conv3", EXAMPLE)
    with pytest.raises(ValueError, match=r"layer 'fc' gives \(3, 7\), expected maps \(n, d, h, w\) for 3 images"):
        split_at(model, "fc", EXAMPLE)
    with pytest.raises(ValueError, match="module 'unused' is not called by the network's forward"):
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
        (lambda maps: maps, r"the network gives shape \(3, 4, 8, 8\) for 3 images, expected logits \(n, classes\)"),
        (lambda maps: (maps, maps), "the network gives tuple for 3 images"),
        (lambda maps: maps.mean((0, 2, 3))[None], r"the network gives shape \(1, 4\) for 3 images"),
        (lambda maps: maps.mean((2, 3)) / 0 * 0, "NaN or infinite logits for the example; check weights and prep"),
    ],
)
def test_what_is_no_classifier_is_refused(then: Callable[[Tensor], object], message: str) -> None:
    model = seeded(lambda: Wrapped(nn.Conv2d(3, 4, 3, padding=1), then))
    with pytest.raises(ValueError, match=message):
        split_at(model, "last-map", EXAMPLE)


def test_training_mode_is_refused() -> None:
    model = seeded(Small)
    model.get_submodule("bn1").train()
    with pytest.raises(ValueError, match=r"the network is in training mode; call model.eval\(\) first"):
        split_at(model, "last-map", EXAMPLE)


@pytest.mark.parametrize(("traceable", "found"), [(True, "has no linear layer"), (False, "calls no nn.Linear")])
def test_a_network_without_linear_layer_has_no_penultimate(traceable: bool, found: str) -> None:
    model = seeded(
        lambda: Wrapped(nn.Conv2d(3, 4, 3), lambda maps: (traceable or bool(maps.sum())) and maps.mean((2, 3)))
    )
    with pytest.raises(ValueError, match=f"layer 'penultimate': the network {found}"):
        split_at(model, "penultimate", EXAMPLE)


def test_a_network_without_maps_has_no_last_map() -> None:
    model = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.ReLU(), nn.Linear(4, 2)))
    with pytest.raises(ValueError, match=r"layer 'last-map': no module puts out a map .* it has no maps"):
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
    with pytest.raises(ValueError, match=r"layer 'two' gives \('tuple',\), expected maps"):
        split_at(model, "two", EXAMPLE)
    with pytest.raises(ValueError, match="layer 'two' puts out a tuple, expected a tensor"):
        capture_layers(model, ["two"], EXAMPLE)


def test_calls_that_depend_on_values_are_refused() -> None:
    class Sometimes(Small):
        def forward(self, x: Tensor) -> Tensor:
            x = self.act(self.conv1(x)) if float(x.mean()) > 10 else self.act(self.act(self.conv1(x)))
            return x.mean((2, 3))

    model = seeded(Sometimes)
    split = split_at(model, "act", EXAMPLE)
    with pytest.raises(
        ValueError, match="module 'act': the network calls it fewer times for some inputs than for others"
    ):
        split.trunk(EXAMPLE + 100)


def test_captured_batches_are_channels_last_and_run_back() -> None:
    model = seeded(Small)
    split = split_at(model, "last-map", EXAMPLE)
    maps, logits = capture_batch(split, EXAMPLE)
    assert maps.shape == (3, 8, 8, 5)
    assert [str(array.dtype) for array in (maps, logits)] == ["float32", "float32"]
    with torch.no_grad():
        np.testing.assert_array_equal(maps.transpose(0, 3, 1, 2), split.trunk(EXAMPLE).numpy())
        np.testing.assert_array_equal(logits, model(EXAMPLE).numpy())
    np.testing.assert_allclose(run_head(split, maps), logits, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(run_head(split, maps.astype(np.float16)), logits, rtol=1e-2, atol=1e-3)
    features, again = capture_batch(split_at(model, "penultimate", EXAMPLE), EXAMPLE)
    np.testing.assert_allclose(features, maps.reshape(3, 4, 2, 4, 2, 5).max((2, 4)).mean((1, 2)), rtol=1e-5)
    np.testing.assert_array_equal(again, logits)


def test_any_layers_can_be_captured_at_once() -> None:
    model = seeded(Residual)
    found = capture_layers(model, ["body", "stem", "fc"], EXAMPLE)
    assert list(found) == ["body", "stem", "fc"]
    with torch.no_grad():
        stem = model.get_submodule("stem")(EXAMPLE)  # the ReLU behind it works in place
        np.testing.assert_allclose(found["stem"], stem.permute(0, 2, 3, 1).numpy(), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(found["fc"], model(EXAMPLE).numpy(), rtol=1e-6, atol=1e-6)
        first = torch.relu(stem)
        second = torch.relu(first + 2 * model.get_submodule("body")(first))
        last = model.get_submodule("body")(second)
        np.testing.assert_allclose(found["body"], last.permute(0, 2, 3, 1).numpy(), rtol=1e-5, atol=1e-6)
    assert not any(module._forward_hooks for module in model.modules())


def test_layers_that_cannot_be_captured_are_named() -> None:
    model = seeded(Small)
    with pytest.raises(ValueError, match="layer 'nothing': no such module"):
        capture_layers(model, ["nothing"], EXAMPLE)
    with pytest.raises(ValueError, match="layer 'unused' is not called"):
        capture_layers(model, ["conv1", "unused"], EXAMPLE)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_name_layer_and_sample(bad: float) -> None:
    array = np.zeros((3, 2, 2, 4), dtype=np.float32)
    check_finite(array, "last-map", IDS)
    array[1, 0, 1, 2] = bad
    with pytest.raises(ValueError, match=r"layer 'last-map': NaN or infinite activations for sample id 22 \(1 of 3"):
        check_finite(array, "last-map", IDS)
    with pytest.raises(ValueError, match="sample id 22"):
        to_storage_dtype(array, "float32", "last-map", IDS)


def test_float16_refuses_what_it_cannot_hold() -> None:
    array = np.zeros((3, 4), dtype=np.float32)
    array[2, 1] = -65504
    np.testing.assert_array_equal(to_storage_dtype(array, "float16", "fc", IDS), array.astype(np.float16))
    assert to_storage_dtype(array, "float16", "fc", IDS).dtype == np.float16
    array[2, 1] = -65520
    with pytest.raises(
        ValueError, match=r"layer 'fc': activation 65520 of sample id 33 is beyond float16 \(largest 65504\)"
    ):
        to_storage_dtype(array, "float16", "fc", IDS)
    np.testing.assert_array_equal(to_storage_dtype(array, "float32", "fc", IDS), array)
