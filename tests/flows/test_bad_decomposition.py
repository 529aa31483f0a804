"""Bad settings of question 2: one line that names the key, code 2, and nothing is written."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

from flows import cli
from tasks.io.networks import build_model
from tests.flows.command import on_commands, said_by

Tree = dict[str, Any]  # Any: YAML

BAD: list[tuple[str, object, str]] = [
    ("decomposition.networks", [], "decomposition.networks: tuple should have at least 1 item"),
    ("decomposition.networks", ["big"], "decomposition.networks: expected one of small, found 'big'"),
    (
        "decomposition.networks",
        ["small", "small"],
        "decomposition: networks: expected different entries, found the same one twice",
    ),
    ("decomposition.data", "letters", "decomposition.data: expected one of digits, found 'letters'"),
    ("decomposition.learn", "test", "data.digits: expected one of the splits train, val, found 'test'"),
    ("decomposition.evaluate", "test", "data.digits: expected one of the splits train, val, found 'test'"),
    ("decomposition.k1", 0, "decomposition.k1: input should be greater than or equal to 1, found 0"),
    ("decomposition.k1", 17, "decomposition.k1: expected at most the 16 features of small train, found 17"),
    ("decomposition.k1", [3, 3], "decomposition: k1: expected different entries, found the same one twice"),
    ("decomposition.k1", {"coverage": 1.5}, "decomposition.k1.coverage: input should be less than or equal to 1"),
    ("decomposition.k1", [], "decomposition.k1: tuple should have at least 1 item"),
    ("decomposition.k2", 17, "decomposition.k2: expected at most the 16 features of small val, found 17"),
    ("decomposition.k2", "all", "decomposition.k2: input should be a valid integer"),
    ("decomposition.rank_by", "size", "decomposition.rank_by: input should be 'abs', 'value' or 'contribution'"),
    ("decomposition.group_by", "cluster", "decomposition.group_by: input should be 'label' or 'prediction'"),
    ("decomposition.draws", 0, "decomposition.draws: input should be greater than or equal to 1, found 0"),
    ("decomposition.ablation", {"noises": ["pink"]}, "decomposition.ablation.noises.0: input should be 'standard'"),
    ("decomposition.ablation", {"scopes": ["all"]}, "decomposition.ablation.scopes.0: input should be 'label'"),
    (
        "decomposition.ablation",
        {"draws": 0},
        "decomposition.ablation.draws: input should be greater than or equal to 1",
    ),
    ("decomposition.retraining.tail", {}, "decomposition.retraining.tail: unknown key"),
    (
        "decomposition.retraining.head.augment",
        {"flip": True},
        "decomposition: retraining.head.augment: expected none, since the head learns from stored features, found one",
    ),
    (
        "decomposition.retraining.head.schedule",
        {"kind": "cosine", "warmup": 2},
        "decomposition.retraining.head: ",
    ),
    (
        "decomposition.group_by",
        "prediction",
        "sample_need: expected `group_by: label`, found prediction",
    ),
    ("decomposition.k2", 20, "decomposition.k2: expected at most the 16 features of small val, found 20"),
    ("decomposition.retraining.network.epochs", 0, "retraining.network.epochs: input should be greater than or equal"),
    ("decomposition.depth", 3, "decomposition.depth: unknown key"),
    (
        "networks.small.model",
        "squeezenet1_1",
        "networks.small: expected a network whose output is that of an nn.Linear, found that it calls none; the "
        "network ends in classifier.1 (Conv2d), classifier.2 (ReLU), classifier.3 (AdaptiveAvgPool2d)",
    ),
]


@pytest.mark.parametrize(("command", "key", "value", "said"), on_commands(BAD))
def test_a_bad_setting_is_one_line(
    decomposed_tree: Tree, tmp_path: Path, command: str, key: str, value: object, said: str
) -> None:
    tree = copy.deepcopy(decomposed_tree)
    place = tree
    *path, last = key.split(".")
    for name in path:
        place = place.setdefault(name, {})
    place[last] = value
    if value == "squeezenet1_1":
        tree["networks"]["small"] |= {"arguments": {}, "preprocessing": {"resize": 32, "convert": True}}
        del tree["networks"]["small"]["train"]["gates"]
    config = tmp_path / "bad.yaml"
    config.write_text(yaml.safe_dump(tree))
    result = CliRunner().invoke(cli.app, [command, str(config)])
    assert result.exit_code == 2, result.output
    lines = said_by(result)
    assert len(lines) == 1, lines
    assert said in lines[0]
    assert not Path(tree["store"]).exists()


def test_a_private_report_shows_no_image_that_was_learned_from(decomposed_tree: Tree, tmp_path: Path) -> None:
    decomposed_tree["decomposition"] |= {"evaluate": "train", "gallery": 2}
    decomposed_tree["report"] = {"training_images": "none"}
    config = tmp_path / "bad.yaml"
    config.write_text(yaml.safe_dump(decomposed_tree))
    result = CliRunner().invoke(cli.app, ["run", str(config)])
    assert result.exit_code == 2
    assert "set `decomposition.gallery: 0` or" in result.stderr


def said(tree: Tree, tmp_path: Path) -> str:
    """Return the one line that a plan ends with."""
    config = tmp_path / "bad.yaml"
    config.write_text(yaml.safe_dump(tree))
    result = CliRunner().invoke(cli.app, ["plan", str(config)])
    assert result.exit_code == 2, result.output
    (line,) = said_by(result)
    return line


def test_gates_on_other_channels_than_features_are_refused(decomposed_tree: Tree, tmp_path: Path) -> None:
    decomposed_tree["networks"]["small"] |= {"model": "tests.tasks.odd_networks:flattened", "arguments": {}}
    decomposed_tree["decomposition"]["retraining"] = {}
    assert "expected a channel for each of the head's 16 features, found 4 channels" in said(decomposed_tree, tmp_path)


def test_outputs_besides_the_logits_cannot_be_retrained(decomposed_tree: Tree, tmp_path: Path) -> None:
    weights = tmp_path / "googlenet.pt"
    torch.save(build_model("googlenet", {"num_classes": 10}, 0).state_dict(), weights)
    decomposed_tree["networks"]["small"] = {
        "model": "googlenet",
        "arguments": {"num_classes": 10},
        "weights": str(weights),
        "preprocessing": {"mode": "RGB", "convert": True, "resize": 64},
    }
    line = said(decomposed_tree, tmp_path)
    assert "networks.small: expected logits (n, C) as its output in training, found a GoogLeNetOutputs" in line
