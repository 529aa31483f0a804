"""Where in a network class-specific gates go."""

from typing import Any

import pytest
import torch

from tasks.io.networks import build_model
from tasks.training.gates import ClassGates, GatedMap, Gating, find_gated_map

PLACES: list[tuple[str, dict[str, Any], tuple[int, ...], GatedMap]] = [
    ("small-cnn", {"width": 4}, (1, 8, 8), GatedMap("8", 8, 10)),
    ("cifar-resnet20", {}, (3, 32, 32), GatedMap("layer3", 64, 10)),
    ("resnet18", {"num_classes": 7}, (3, 64, 64), GatedMap("layer4", 512, 7)),  # its last ReLU is called twice
    ("cifar-vgg16", {"width": 0.05}, (3, 32, 32), GatedMap("features.42", 26, 10)),
]


@pytest.mark.parametrize(("name", "arguments", "shape", "expected"), PLACES)
def test_where_gates_go(name: str, arguments: dict[str, Any], shape: tuple[int, ...], expected: GatedMap) -> None:
    model = build_model(name, arguments, 0).eval()
    example = torch.randn((1, *shape), generator=torch.Generator().manual_seed(0))
    found = find_gated_map(model, example)
    assert found == expected
    gates = ClassGates(found.n_channels, found.n_classes)
    with torch.inference_mode():
        plain = model(example)
        outputs = []
        for value in (1.0, 0.0):
            gates.weight.fill_(value)
            with Gating(gates, model.get_submodule(found.name)).during(torch.tensor([3])):
                outputs.append(model(example))
        again = model(example)
    assert torch.equal(outputs[0], plain)
    assert torch.equal(again, plain)  # no hook stays
    assert not torch.equal(outputs[1], plain)
    with torch.inference_mode(), Gating(gates, model.get_submodule(found.name)).during(torch.tensor([3])):
        assert torch.equal(model(-example), outputs[1])  # all closed: the image does not matter


@pytest.mark.parametrize(
    ("name", "arguments", "shape", "message"),
    [
        ("densenet121", {}, (3, 64, 64), r"module that is called once, found relu in .* a hook cannot reach"),
        ("mlp", {"sizes": [64, 8, 3]}, (1, 8, 8), r"gates: layer 'last-map'"),
    ],
)
def test_networks_without_a_place_are_refused(
    name: str, arguments: dict[str, Any], shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        find_gated_map(build_model(name, arguments, 0).eval(), torch.zeros((1, *shape)) + 0.5)
