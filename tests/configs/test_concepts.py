"""The config's section `concepts`: what is left out, and what goes with what."""

from typing import Any

import pytest
from pydantic import ValidationError

from configs.concepts import Concepts, Features, OpenClip, Tiny
from configs.load import ConfigError, check_config, config_of_text, config_text
from configs.schema import Config

Tree = dict[str, Any]  # Any: YAML
ASKED: Tree = {"networks": ["net"], "layers": ["conv", "fc"], "probe": {"data": "probe"}}


def tree(**changes: object) -> Tree:
    """Return a config that asks question 3, with other settings of the section."""
    train = {"data": "digits", "epochs": 1, "optimizer": {"lr": 0.1}}
    return {
        "name": "small",
        "data": {"digits": {"source": "sklearn-digits"}, "probe": {"source": "mini-broden"}},
        "networks": {"net": {"model": "mlp", "train": train}, "other": {"model": "mlp", "train": train}},
        "concepts": {**ASKED, **changes},
    }


def refused(**changes: object) -> str:
    """Return what a config with other settings of the section says."""
    with pytest.raises(ConfigError) as caught:
        check_config(tree(**changes), "small")
    text = str(caught.value)
    assert len(text.splitlines()) == 1, text
    return text


def test_what_a_section_leaves_out() -> None:
    asked = Concepts.model_validate(ASKED)
    assert (asked.layout, asked.pool, asked.snapshots, asked.checkpoints) == (None, "mean", "all", {})
    assert (asked.probe.split, asked.probe.size, asked.words, asked.text) == (None, None, ("labels",), "own")
    assert asked.image_text == Tiny(kind="tiny", steps=700, seed=0)
    assert asked.detectors == {"soft_wpmi": {}}
    assert (asked.anchors, asked.track, asked.temperatures, asked.plane) == (None, {}, (), "pca")
    assert (asked.shown, asked.seed) == (24, 0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"kind": "tiny", "steps": 5, "seed": 3}, Tiny(steps=5, seed=3)),
        ({"kind": "open-clip", "path": "a.pt", "model": "RN50"}, OpenClip(kind="open-clip", path="a.pt", model="RN50")),
        ({"kind": "features", "path": "a.npz"}, Features(kind="features", path="a.npz")),
    ],
)
def test_an_image_text_model_is_chosen_by_its_kind(given: Tree, expected: object) -> None:
    assert Concepts.model_validate({**ASKED, "image_text": given}).image_text == expected


def test_a_kind_that_a_config_as_text_leaves_out_is_the_default() -> None:
    captioner = {"encoder": "net", "layers": ["conv"], "captions": {"kind": "drawn", "count": 60}}
    given = tree(image_text={"kind": "tiny", "steps": 5}, detectors={"milan": {}}, captioner=captioner)
    config = check_config(given, "small")
    text = config_text(config)
    assert "tiny" not in text
    assert config_of_text(text, "the record of a run") == config


def test_layers_are_those_of_all_networks_or_of_each() -> None:
    asked = Concepts.model_validate({**ASKED, "networks": ["net", "other"]})
    assert asked.layers_of("net") == asked.layers_of("other") == ("conv", "fc")
    own = {"net": ["a"], "other": ["b", "c"]}
    asked = Concepts.model_validate({**ASKED, "networks": ["net", "other"], "layers": own})
    assert (asked.layers_of("net"), asked.layers_of("other")) == (("a",), ("b", "c"))


def test_the_names_of_a_section_are_its_networks_and_its_probing_set() -> None:
    found = list(Concepts.model_validate(ASKED).names())
    assert found == [("networks", "networks", "net"), ("probe.data", "data", "probe")]


BAD: list[tuple[Tree, str]] = [
    ({"networks": []}, "concepts.networks: tuple should have at least 1 item"),
    ({"networks": ["net", "net"]}, "concepts: networks: expected different entries, found the same one twice"),
    ({"networks": ["big"]}, "concepts.networks: expected one of net, other, found 'big'"),
    ({"probe": {"data": "letters"}}, "concepts.probe.data: expected one of digits, probe, found 'letters'"),
    ({"probe": {}}, "concepts.probe.data: required, but missing"),
    ({"probe": {"data": "probe", "size": 0}}, "concepts.probe.size: input should be greater than or equal to 1"),
    ({"probe": {"data": "probe", "size": 100_000}}, "concepts.probe.size: expected 1 to 8,192 pixels, found 100000"),
    ({"probe": {"data": "probe", "crop": 3}}, "concepts.probe.crop: unknown key"),
    ({"layers": []}, "concepts.layers: value should have at least 1 item"),
    ({"layers": {"net": []}}, "concepts: layers.net: expected at least one layer, found none; name one"),
    ({"layers": ["conv", "conv"]}, "concepts: layers: expected different entries, found the same one twice"),
    ({"layers": {"net": ["a", "a"]}}, "concepts: layers: expected different entries, found the same one twice"),
    ({"layers": {"other": ["a"]}}, "concepts: layers: expected layers of net, found other"),
    ({"layers": {"net": ["a"], "other": ["a"]}}, "concepts: layers: expected layers of net, found net, other"),
    ({"layout": {"relu": "tokens"}}, "concepts: layout: expected names from `layers`, found 'relu'; add it to"),
    ({"layout": "upside-down"}, "concepts.layout: input should be 'channels-first', 'channels-last' or 'tokens'"),
    ({"pool": "median"}, "concepts.pool: input should be 'mean', 'max', 'first-token' or 'patches', found 'median'"),
    ({"temperatures": [0.1, 0.1]}, "concepts: temperatures: expected different entries, found the same one twice"),
    ({"snapshots": []}, "concepts.snapshots: expected all or rising steps, found none; name at least one"),
    ({"snapshots": [3, 3]}, "concepts.snapshots: expected rising steps, found [3, 3]; sort them"),
    ({"snapshots": [5, 3]}, "concepts.snapshots: expected rising steps, found [5, 3]; sort them"),
    ({"snapshots": [-1]}, "concepts.snapshots.0: input should be greater than or equal to 0, found -1"),
    ({"snapshots": "some"}, "concepts.snapshots: input should be 'all', found 'some'"),
    ({"checkpoints": {"big": {"folder": "f"}}}, "concepts: checkpoints: expected names from `networks`, found 'big'"),
    ({"checkpoints": {"net": {}}}, "concepts.checkpoints.net.folder: required, but missing"),
    ({"words": []}, "concepts.words: tuple should have at least 1 item"),
    ({"words": ["labels", "labels"]}, "concepts: words: expected different entries, found the same one twice"),
    ({"words": ["a\nb"]}, "concepts.words.0: expected a path or URL without control characters"),
    (
        {"image_text": {"kind": "clip"}},
        "concepts.image_text.kind: expected one of tiny, open-clip, features, found 'clip'",
    ),
    ({"image_text": {"path": "a.npz"}}, "concepts.image_text.kind: required, but missing"),
    ({"image_text": {"kind": "features"}}, "concepts.image_text.path: required, but missing"),
    ({"image_text": {"kind": "open-clip", "path": "a", "steps": 3}}, "concepts.image_text.steps: unknown key"),
    ({"image_text": {"kind": "tiny", "steps": 0}}, "concepts.image_text.steps: input should be greater than or"),
    ({"text": "bert"}, "concepts.text: input should be 'own' or 'minilm', found 'bert'"),
    ({"detectors": {}}, "concepts.detectors: dictionary should have at least 1 item"),
    ({"track": {"relu": [1]}}, "concepts: track: expected names from `layers`, found 'relu'; add it to `layers`"),
    ({"track": {"conv": [1, 1]}}, "concepts: track.conv: expected different entries, found the same one twice"),
    ({"track": {"conv": [-1]}}, "concepts.track.conv.0: input should be greater than or equal to 0, found -1"),
    ({"temperatures": [0]}, "concepts.temperatures.0: input should be greater than 0, found 0"),
    ({"plane": "tsne"}, "concepts.plane: input should be 'pca' or 'umap', found 'tsne'"),
    ({"shown": 201}, "concepts.shown: input should be less than or equal to 200, found 201"),
    ({"shown": -1}, "concepts.shown: input should be greater than or equal to 0, found -1"),
    ({"seed": -1}, "concepts.seed: input should be greater than or equal to 0, found -1"),
    ({"neurons": [1]}, "concepts.neurons: unknown key"),
]


@pytest.mark.parametrize(("changes", "text"), BAD)
def test_a_bad_setting_is_one_line_that_names_its_key(changes: Tree, text: str) -> None:
    assert text in refused(**changes)


@pytest.mark.parametrize("images", ["ids", "none"])
def test_probing_images_are_not_trained_on_where_training_images_are_private(images: str) -> None:
    private: Tree = {"report": {"training_images": images}}
    for probe, shown, fits in (
        ({"data": "probe"}, 24, True),  # another data set
        ({"data": "digits", "split": "val"}, 24, True),
        ({"data": "digits", "split": "train"}, 0, True),  # no picture
        ({"data": "digits", "split": "train"}, 24, False),
        ({"data": "digits"}, 24, False),  # all splits
    ):
        changed = {**tree(probe=probe, shown=shown), **private}
        if fits:
            Config.model_validate(changed)
            continue
        with pytest.raises(ValidationError) as caught:
            Config.model_validate(changed)
        found = probe.get("split", "all samples")
        assert (
            f"report.training_images: with '{images}' expected probing images that no network is trained on, found "
            f"{found} of 'digits'; set `concepts.shown: 0`, or `concepts.probe.split` to another"
        ) in str(caught.value)
        Config.model_validate(tree(probe=probe, shown=shown))  # may be shown
