"""Weights that torch loads, and those that a tool has put something around: what is loaded, undone and said."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torchvision.models.mnasnet import _BN_MOMENTUM, _get_depths, _stack

from tasks.io.networks import build_model
from tasks.io.weights import load_weights
from tests.tasks.odd_networks import Hooked, Net, Owned, Versioned, lazy, parallel


def saved(path: Path, content: object) -> str:
    """Write a torch file and return its path."""
    torch.save(content, path / "w.pt")
    return str(path / "w.pt")


def compiled(model: nn.Module) -> nn.Module:
    """Return a compiled network, without the compiler."""
    found: nn.Module = torch.compile(model, backend="eager")  # type: ignore[assignment]  # a Module stays one
    return found


def assert_same(model: nn.Module, given: nn.Module) -> None:
    """Assert that two networks have the same state."""
    own, other = model.state_dict(), given.state_dict()
    assert own.keys() == other.keys()
    assert all(torch.equal(own[name], other[name]) for name in own)


@pytest.mark.parametrize("name", ["mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3"])
def test_networks_with_versions(tmp_path: Path, name: str) -> None:
    given = build_model(name, {}, 1)
    save_file(given.state_dict(), tmp_path / "w.safetensors")  # has no versions, which this network refuses
    for content, undone in (
        (given.state_dict(), ""),
        (nn.DataParallel(given).state_dict(), "names without 'module.'"),
        ({"model": given.state_dict(), "epoch": 3}, "entry 'model'"),
        (None, ""),
    ):
        path = str(tmp_path / "w.safetensors") if content is None else saved(tmp_path, content)
        model = build_model(name, {}, 0)
        assert load_weights(model, path) == undone
        assert_same(model, given)


def old_mnasnet() -> nn.Module:
    """Return mnasnet0_5 in the format of version 1, which had a stem of a fixed size."""
    model, depths = build_model("mnasnet0_5", {}, 1), _get_depths(0.5)
    stem = [
        *(nn.Conv2d(3, 32, 3, padding=1, stride=2, bias=False), nn.BatchNorm2d(32, momentum=_BN_MOMENTUM), nn.ReLU()),
        *(nn.Conv2d(32, 32, 3, padding=1, groups=32, bias=False), nn.BatchNorm2d(32, momentum=_BN_MOMENTUM), nn.ReLU()),
        *(nn.Conv2d(32, 16, 1, bias=False), nn.BatchNorm2d(16, momentum=_BN_MOMENTUM)),
        _stack(16, depths[2], 3, 2, 3, 3, _BN_MOMENTUM),
    ]
    for index, layer in enumerate(stem):
        model.layers[index] = layer  # type: ignore[operator]  # a Sequential
    model._version = 1
    return model


@pytest.mark.filterwarnings("ignore:A new version of MNASNet")
@pytest.mark.parametrize("wrap", [lambda model: model, nn.DataParallel])
def test_a_network_that_is_rebuilt_for_an_old_format(tmp_path: Path, wrap: Callable[[nn.Module], nn.Module]) -> None:
    given, model = old_mnasnet(), build_model("mnasnet0_5", {}, 0)
    load_weights(model, saved(tmp_path, wrap(given).state_dict()))
    assert_same(model, given)


def test_renamed_layers_and_changed_values(tmp_path: Path) -> None:
    given = Versioned()
    state = given.state_dict()
    new = Versioned()
    load_weights(new, saved(tmp_path, state))
    assert_same(new, given)
    old = {name.replace("fc.", "head."): value for name, value in state.items()} | {"gain": torch.full((1,), 0.5)}
    for content in (old, {f"module.{name}": value for name, value in old.items()}):
        model = Versioned()
        load_weights(model, saved(tmp_path, content))  # without versions, as it was before there were any
        assert model.gain.item() == 2.0
        assert torch.equal(model.fc.weight, given.fc.weight)


def test_hooks_of_the_users_own(tmp_path: Path) -> None:
    given, model = Hooked(), Hooked()
    assert "head.weight" in given.state_dict()
    assert load_weights(model, saved(tmp_path, given.state_dict())) == ""
    assert_same(model, given)
    load_weights(model := Hooked(), saved(tmp_path, dict(Net.state_dict(given))))
    assert_same(model, given)


@pytest.mark.parametrize("build", [Owned, parallel])
def test_an_attribute_of_the_networks_own_is_no_prefix(tmp_path: Path, build: Callable[[], nn.Module]) -> None:
    given = build()
    assert all(name.startswith("module.") for name in given.state_dict())
    for content, undone in (
        (given.state_dict(), ""),
        (nn.DataParallel(given).state_dict(), "names without 'module.'"),
        (compiled(given).state_dict(), "names without '_orig_mod.'"),
    ):
        model = build()
        assert load_weights(model, saved(tmp_path, content)) == undone
        assert_same(model, given)


def test_lazy_layers(tmp_path: Path) -> None:
    given, model = lazy(), lazy()
    given(torch.zeros(2, 1, 8, 8))
    load_weights(model, saved(tmp_path, given.state_dict()))
    images = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(model.eval()(images), given.eval()(images), rtol=0, atol=0)
    assert_same(model, given)


def small(seed: int) -> nn.Module:
    """Return VGG-16 for tiny images, at a hundredth of its width."""
    return build_model("cifar-vgg16", {"width": 0.01}, seed)


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return a state dict with a prefix before every name."""
    return {f"{prefix}{name}": value for name, value in state.items()}


def parallel_features(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of a network whose features alone are data-parallel."""
    model.features = nn.DataParallel(model.features)  # type: ignore[type-var]  # a Module
    return dict(model.state_dict())


def compiled_classifier(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of a network whose classifier alone is compiled."""
    model.classifier = compiled(model.classifier)  # type: ignore[arg-type]  # a Module
    return dict(nn.DataParallel(model).state_dict())


WRAPPED: list[tuple[Callable[[nn.Module], Any], str]] = [
    (lambda m: compiled(m).state_dict(), "names without '_orig_mod.'"),
    (lambda m: nn.DataParallel(compiled(m)).state_dict(), "names without 'module.', '_orig_mod.'"),
    (lambda m: compiled(nn.DataParallel(m)).state_dict(), "names without '_orig_mod.', 'module.'"),
    (parallel_features, "names without 'features.module.'"),
    (compiled_classifier, "names without 'module.', 'classifier._orig_mod.'"),
    (lambda m: {"state_dict": prefixed(m.state_dict(), "model."), "epoch": 3}, "entry 'state_dict' and names without"),
    (lambda m: {"ema": AveragedModel(m).state_dict(), "step": 3}, "entry 'ema' and names without 'module.'"),
    (lambda m: {"model_state_dict": m.state_dict(), "optimizer": {"state": {}}}, "entry 'model_state_dict'"),
    (lambda m: {"net": nn.DataParallel(m).state_dict(), "acc": 0.9}, "entry 'net' and names without 'module.'"),
    (lambda m: {"ema": small(5).state_dict(), "model": m.state_dict()}, "entry 'model'"),
    (lambda m: {"model": {"state_dict": m.state_dict()}}, "entry 'model.state_dict'"),
]


@pytest.mark.parametrize(("wrap", "undone"), WRAPPED)
def test_what_tools_add_is_undone_and_said(tmp_path: Path, wrap: Callable[[nn.Module], Any], undone: str) -> None:
    model = small(0)
    assert load_weights(model, saved(tmp_path, wrap(small(1)))).startswith(undone)
    assert_same(model, small(1))


def test_where_nothing_fits_the_keys_are_named(tmp_path: Path) -> None:
    state = prefixed(small(1).state_dict(), "encoder.")
    model, before = small(0), small(0)
    with pytest.raises(ValueError, match=r"\(first encoder\.features\.0\.weight\)") as error:
        load_weights(model, saved(tmp_path, {"state_dict": state, "epoch": 3}))
    assert "The file has the keys encoder.features.0.weight, encoder.features.1.weight, " in str(error.value)
    assert str(error.value).endswith(", ... (81) (entry 'state_dict')")
    assert "\n" not in str(error.value)
    assert_same(model, before)
    with pytest.raises(
        ValueError, match=r"expected a dict of tensors by name, found a dict; its keys: epoch, student;"
    ):
        load_weights(model, saved(tmp_path, {"epoch": 3, "student": {"w": 3}}))


def test_a_key_of_a_hostile_file_stays_in_its_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 unexpected") as error:
        load_weights(Net(), saved(tmp_path, {**Net().state_dict(), "a\nb" + "c" * 500: torch.zeros(1)}))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500
