"""Tests of `tasks.io.open_clip` with a tiny model that they save."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tasks.io.image_text import open_image_text
from tasks.io.model_files import CONFIG, open_clip_digests
from tasks.io.open_clip import OpenClip

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("open_clip") is None, reason="needs layerlore's extra `clip`"
)
NAME = "layerlore-tiny"
TINY = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of OpenAI's CLIP


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:  # Any: open_clip ships no types
    """A tiny model, and the folder in which it is saved in every form."""
    import open_clip

    folder = tmp_path_factory.mktemp("clip")
    (folder / f"{NAME}.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder / f"{NAME}.json")
    torch.manual_seed(0)
    network = open_clip.CLIP(**TINY).eval()
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, folder / "w.safetensors")
    torch.save(network.state_dict(), folder / "w.pt")
    (folder / "model").mkdir()
    (folder / "model" / "open_clip_model.safetensors").write_bytes((folder / "w.safetensors").read_bytes())
    (folder / "model" / CONFIG).write_text(json.dumps({"model_cfg": TINY, "preprocess_cfg": {}}))
    return network, folder


@needs_package
@pytest.mark.parametrize(("path", "model"), [("w.safetensors", NAME), ("w.pt", NAME), ("model", "")])
def test_every_form_gives_the_models_features(tiny: tuple[Any, Path], path: str, model: str) -> None:
    network, folder = tiny
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    inputs = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(
        STD
    )[:, None, None]
    with torch.no_grad():
        expected = network.encode_image(inputs).numpy()
    opened = open_image_text("open-clip", path=str(folder / path), model=model)
    rows = opened.encode_images(images)
    np.testing.assert_allclose(rows, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-5)
    texts = opened.encode_texts(["a cat", "sky", "a cat"])
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(texts[0], texts[2], atol=1e-6)
    assert abs(texts[0] - texts[1]).max() > 0.01
    assert opened.encode_images(np.zeros((70, 40, 50, 3), dtype=np.uint8)).shape == (70, 24)  # two batches, cropped


@needs_package
def test_the_digest_covers_each_file(tiny: tuple[Any, Path]) -> None:
    _, folder = tiny
    assert set(open_clip_digests(str(folder / "model"))) == {CONFIG, "open_clip_model.safetensors"}
    single = open_clip_digests(str(folder / "w.safetensors"), NAME)
    assert single["weights"] == open_clip_digests(str(folder / "model"))["open_clip_model.safetensors"]


@needs_package
@pytest.mark.parametrize(
    ("path", "model", "message"),
    [
        ("damaged.safetensors", NAME, r"expected weights of layerlore-tiny, found another file"),
        ("damaged.pt", NAME, r"expected weights of layerlore-tiny, found another file"),
        ("objects.pt", NAME, r"expected weights of layerlore-tiny, found another file"),
        ("other.safetensors", NAME, r"expected weights of layerlore-tiny, found another file"),
        ("empty.safetensors", NAME, r"expected weights of layerlore-tiny, found another file"),
        ("none.pt", NAME, r"expected a file of weights or a folder, found none"),
        ("w.txt", NAME, r"expected a file that ends in .*, found 'w.txt'"),
        ("w.pt", "no-such-model", r"model: expected an architecture of open_clip, .*found 'no-such-model'"),
        ("w.pt", "", r"model: expected an architecture of open_clip, .*found ''"),
        ("w.pt", "ViT-B-16-SigLIP", r"expected a tokenizer of open_clip, found one of a hub"),
        ("w.pt", "roberta-ViT-B-32", r"expected a text tower of open_clip, found one of a hub"),
        (".", "", r"expected open_clip_config.json in the folder, found none"),
        ("model", NAME, r"expected a file of weights for model 'layerlore-tiny', found a folder"),
        ("text", "", r"expected open_clip_config.json of open_clip with `model_cfg`, found another file"),
        ("hub", "", r"open_clip_config.json: expected a text tower of open_clip, found one of a hub"),
        ("bare", "", r"expected weights of its config, found another file"),
    ],
)
def test_a_bad_model_is_named_in_one_line(
    tiny: tuple[Any, Path], tmp_path: Path, path: str, model: str, message: str
) -> None:
    for file in ("w.safetensors", "w.pt"):
        (tmp_path / file).write_bytes((tiny[1] / file).read_bytes())
    for file in ("damaged.safetensors", "damaged.pt", "w.txt"):
        (tmp_path / file).write_bytes((tiny[1] / "w.pt").read_bytes()[: 10**4])
    torch.save({"state_dict": Path}, tmp_path / "objects.pt")
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    save_file({}, tmp_path / "empty.safetensors")
    hub = TINY | {"text_cfg": {"hf_model_name": "roberta-base"}}
    for folder, text in {
        "model": json.dumps({"model_cfg": TINY}),
        "text": "no JSON",
        "hub": json.dumps({"model_cfg": hub}),
        "bare": json.dumps({"model_cfg": TINY}),
    }.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / CONFIG).write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        OpenClip(str(tmp_path / path), model)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("open_clip ")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.io.model_files.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"expected package open_clip_torch, found none; install layerlore's extra"):
        OpenClip("w.pt", "RN50")


@needs_package
def test_a_url_is_named() -> None:
    with pytest.raises(ValueError, match="expected a local path, found a URL"):
        OpenClip("s3://bucket/w.pt", "RN50")
