"""Tests of `tasks.io.networks` and `tasks.io.models`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

from configs.schema import Preprocessing, SklearnDigits
from tasks.io.images import preprocess
from tasks.io.manifest import read_manifest
from tasks.io.models import OWN
from tasks.io.networks import build_model, find_builder, published_models, resolve_preprocessing
from tasks.io.sources import open_source
from tasks.io.weights import load_weights


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with builders, on the import path."""
    (tmp_path / "own_networks.py").write_text(
        "from torch import nn\ndef build(width=2): return nn.Linear(width, 2)\ndef nothing(): return 3\nnumber = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "own_networks"


def test_every_torchvision_classifier_is_known() -> None:
    assert set(published_models()) == set(torchvision.models.list_models(module=torchvision.models))
    assert set(OWN) == {
        "mlp",
        "small-cnn",
        "graph-network",
        "lstm",
        "transformer",
        "cifar-vgg16",
        *(f"cifar-resnet{n}" for n in (20, 32, 44, 56)),
    }


def test_a_seed_gives_the_same_weights_and_the_global_state_is_put_back() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (build_model("small-cnn", {}, seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])


@pytest.mark.parametrize(("name", "n_parameters"), [("20", 269_722), ("32", 464_154), ("44", 658_586), ("56", 853_018)])
def test_cifar_resnets_have_the_papers_size_and_depth(name: str, n_parameters: int) -> None:
    model = build_model(f"cifar-resnet{name}", {}, 0)
    assert sum(p.numel() for p in model.parameters()) == n_parameters  # 0.27, 0.46, 0.66, 0.85 M in table 6
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules()) == int(name)


def test_option_a_shortcut_takes_every_second_pixel_and_pads_channels_evenly() -> None:
    model = build_model("cifar-resnet20", {}, 0)
    block = model.get_submodule("layer2.0").eval()
    nn.init.zeros_(block.get_submodule("bn2").weight)  # type: ignore[arg-type]  # a parameter
    x = torch.rand(2, 16, 8, 8)
    y = block(x)
    assert y.shape == (2, 32, 4, 4)
    torch.testing.assert_close(y[:, 8:24], x[:, :, ::2, ::2], rtol=0, atol=0)
    assert y[:, :8].abs().max() == 0
    assert y[:, 24:].abs().max() == 0


@pytest.mark.parametrize(("arguments", "shape"), [({}, (1, 10)), ({"channels": 3, "classes": 4, "width": 8}, (3, 4))])
def test_small_cnn_takes_small_images(arguments: dict[str, int], shape: tuple[int, int]) -> None:
    model = build_model("small-cnn", arguments, 0).eval()
    assert model(torch.rand(2, shape[0], 8, 8)).shape == (2, shape[1])
    last = model[:9](torch.rand(2, shape[0], 8, 8))  # type: ignore[index]  # a Sequential
    assert last.shape == (2, 2 * arguments.get("width", 32), 4, 4)
    assert bool((last >= 0).all())


def test_small_cnn_learns_the_digits() -> None:
    digits = SklearnDigits(source="sklearn-digits")
    table, grey = read_manifest(digits), Preprocessing(mode="L")
    samples = open_source(digits).read(table["key"].tolist())
    images = torch.stack([preprocess(sample.image, grey, "") for sample in samples])
    labels, train = torch.tensor(table["label_given"].to_numpy()), torch.tensor((table["split"] == "train").to_numpy())
    model = build_model("small-cnn", {}, 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for epoch in range(6):
        order = torch.from_numpy(np.random.default_rng([0, epoch]).permutation(int(train.sum())))
        for start in range(0, len(order), 32):
            batch = order[start : start + 32]
            loss = nn.functional.cross_entropy(model(images[train][batch]), labels[train][batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own
            optimizer.step()
    hits = model.eval()(images[~train]).argmax(1) == labels[~train]
    assert float(hits.float().mean()) > 0.97


def test_models_by_import_path(own_module: str) -> None:
    model = build_model(f"{own_module}:build", {"width": 5}, 0)
    assert isinstance(model, nn.Linear)
    assert model.in_features == 5


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("resnet81", {}, "model: expected a known name, found 'resnet81'; close: resnet18"),
        ("qqq", {}, "model: expected a known name, found 'qqq'; known: mlp, small-cnn, "),
        ("small-cnn", {"depth": 3}, r"model 'small-cnn' with arguments \{'depth': 3\}: .*unexpected keyword argument"),
        ("own_networks:nothing", {}, "expected torch.nn.Module from its builder, found int"),
        ("own_networks:number", {}, "model 'own_networks:number': expected a function, found a int"),
        ("own_networks:none", {}, "import path 'own_networks:none'"),
    ],
)
def test_bad_models_are_named(own_module: str, name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(name, arguments, 0)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_models_that_warn_by_default_are_built_quietly(name: str) -> None:
    assert find_builder(name).keywords["init_weights"] is True  # type: ignore[attr-defined]  # a partial


def test_preprocessing_of_published_weights_equals_their_transforms() -> None:
    image = np.random.default_rng(0).integers(0, 256, (300, 260, 3), dtype=np.uint8)
    for name in (
        "SqueezeNet1_1_Weights.IMAGENET1K_V1",
        "ResNet50_Weights.IMAGENET1K_V2",
        "VGG16_Weights.IMAGENET1K_FEATURES",
    ):
        settings = resolve_preprocessing(name)
        transforms = torchvision.models.get_weight(name).transforms()

        expected = transforms(Image.fromarray(image))
        torch.testing.assert_close(preprocess(image, settings, "k"), expected, rtol=1e-6, atol=1e-5)


def test_settings_beside_a_weights_entry_win() -> None:
    settings = Preprocessing(like="SqueezeNet1_1_Weights.IMAGENET1K_V1", convert=True, resize=232)
    assert resolve_preprocessing(settings) == Preprocessing(
        convert=True, resize=232, crop=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    )
    plain = Preprocessing(mode="L")
    assert resolve_preprocessing(plain) is plain


@pytest.mark.parametrize("name", ["ResNet50", "ResNet50_Weights.NONE", "Raft_Large_Weights.C_T_V1"])
def test_other_names_are_no_weights(name: str) -> None:
    with pytest.raises(
        ValueError, match=f"preprocessing: expected the name of torchvision classification weights, .* found '{name}'"
    ):
        resolve_preprocessing(name)


@pytest.mark.slow
def test_published_cifar_resnet20_reaches_its_accuracy(data_dir: Path) -> None:
    with np.load(data_dir / "cifar10/cifar10_test.npz", allow_pickle=False) as archive:
        planes, labels = archive["planes"], archive["labels"]
    red, green, blue = np.cumsum(np.cumsum(planes, axis=-1, dtype=np.uint8), axis=-2, dtype=np.uint8)
    images = np.stack([red + green, green, blue + green], axis=-1)
    settings = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    model = build_model("cifar-resnet20", {}, 0).eval()
    load_weights(model, str(data_dir / "weights/resnet20_cifar10.pt"))
    hits = 0
    with torch.inference_mode():
        for start in range(0, len(images), 500):
            batch = torch.stack([preprocess(image, settings, "") for image in images[start : start + 500]])
            hits += int((model(batch).argmax(1).numpy() == labels[start : start + 500]).sum())
    assert hits == 9173


@pytest.mark.slow
def test_given_squeezenet_weights_fit(data_dir: Path) -> None:
    model = build_model("squeezenet1_1", {}, 0)
    load_weights(model, str(data_dir / "weights/squeezenet1_1_imagenet.pt"))
    assert model.get_parameter("classifier.1.bias").shape == (1000,)
