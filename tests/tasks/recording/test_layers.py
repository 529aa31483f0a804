import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from tasks.recording.layers import choose_layers, recorded_parameters

EVERY = nn.ModuleDict(
    {
        "linear": nn.Linear(2, 3),
        "conv1": nn.Conv1d(1, 2, 3),
        "conv2": nn.Conv2d(1, 2, 3, bias=False),
        "conv3": nn.Conv3d(1, 2, 3),
        "up1": nn.ConvTranspose1d(1, 2, 3),
        "up2": nn.ConvTranspose2d(1, 2, 3),
        "up3": nn.ConvTranspose3d(1, 2, 3),
        "batch": nn.BatchNorm1d(2),
        "instance": nn.InstanceNorm2d(2, affine=True),
        "layer": nn.LayerNorm(2),
        "group": nn.GroupNorm(1, 2),
        "rms": nn.RMSNorm(2),
        "relu": nn.ReLU(),
    }
)


def test_every_covered_module_and_no_normalisation() -> None:
    assert list(choose_layers(EVERY)) == ["linear", "conv1", "conv2", "conv3", "up1", "up2", "up3"]
    layers, parameters, _ = recorded_parameters(choose_layers(EVERY))
    assert [layer.bias for layer in layers[:3]] == ["linear.bias", "conv1.bias", None]
    assert {p.name: p.shape for p in parameters}["up2.weight"] == (1, 2, 3, 3)


@pytest.mark.parametrize(
    ("module", "name", "kind"),
    [
        (nn.Embedding(3, 2, max_norm=1.0), "x", "Embedding with max_norm, which changes its weight in each call"),
        (nn.LSTMCell(2, 2), "x", "LSTMCell"),
        (nn.EmbeddingBag(3, 2), "x", "EmbeddingBag"),
        (nn.PReLU(), "x", "PReLU"),
        (nn.Bilinear(2, 2, 2), "x", "Bilinear"),
        (
            nn.MultiheadAttention(2, 1, add_bias_kv=True),
            "x",
            "MultiheadAttention with add_bias_kv, which adds a key and a value of its own",
        ),
        (parametrizations.weight_norm(nn.Linear(2, 2)), "x", "ParametrizedLinear"),
    ],
)
def test_anything_else_with_parameters_is_an_error(module: nn.Module, name: str, kind: str) -> None:
    model = nn.ModuleDict({"fc": nn.Linear(2, 2), name: module})
    with pytest.raises(
        ValueError, match=rf"^module '{name}': expected parameters of modules that can be .* found those of a {kind}: "
    ):
        choose_layers(model)
    assert list(choose_layers(model, ["fc"])) == ["fc"]
    with pytest.raises(
        ValueError,
        match=rf"^layer '{name}': expected one of Linear, Conv1d, .*ConvTranspose3d, Embedding, "
        rf"MultiheadAttention, LSTM, GRU, RNN, found a {kind}$",
    ):
        choose_layers(model, [name])


def test_parameters_outside_any_layer_are_an_error() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model.register_parameter("scale", nn.Parameter(torch.ones(1)))
    with pytest.raises(
        ValueError, match=r"^the network itself: expected parameters of .* a Sequential: scale; .* layers: \[0\]$"
    ):
        choose_layers(model)


def test_an_unknown_layer_names_those_near_it() -> None:
    with pytest.raises(
        ValueError,
        match=r"^layer 'conv4': expected a module of the model, found none; close: 'conv3', 'conv2', 'conv1'$",
    ):
        choose_layers(EVERY, ["linear", "conv4"])
    with pytest.raises(ValueError, match=r"^layer '': expected a module of the model|found a ModuleDict"):
        choose_layers(EVERY, [""])


def test_nothing_to_record_is_an_error() -> None:
    for model, layers in ((nn.ReLU(), None), (EVERY, [])):
        with pytest.raises(ValueError, match="model: expected a layer that can be recorded"):
            choose_layers(model, layers)


def test_a_module_under_two_names_is_recorded_once() -> None:
    shared = nn.Linear(2, 2)
    assert list(choose_layers(nn.Sequential(shared, nn.ReLU(), shared))) == ["0"]
