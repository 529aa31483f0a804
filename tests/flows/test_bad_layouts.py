"""Layouts that are neither known nor said, or cannot be: a line that names the key, exit code 2, and no store."""

from pathlib import Path

import pytest
import torch

from tests.flows.command import Tree, Write, layerlore, refused
from tests.tasks.layout_networks import Planted

pytestmark = pytest.mark.usefixtures("wide")
UNKNOWN = "expected channels on axis 1 or on the last, found them on an unknown axis of its output (n, 2, 2, 3)"


def planted(tree: Tree, path: Path, layout: str) -> Tree:
    """Return a config of both questions on a planted network's layer."""
    torch.save(Planted().state_dict(), path / "weights.pt")
    network = {
        "model": "tests.tasks.layout_networks:Planted",
        "arguments": {"layout": layout},
        "weights": str(path / "weights.pt"),
        "preprocessing": {"mode": "L"},
    }
    return {
        **tree,
        "networks": {"small": network},
        "activations": {"networks": ["small"], "layers": ["layer", "fc"]},
        "interpretation": {**tree["interpretation"], "layer": "layer"},
    }


@pytest.mark.parametrize(
    ("layout", "without", "override", "expected"),
    [
        ("unknown", "interpretation", "seeds=[0]", f"activations.layout: networks.small: layer 'layer': {UNKNOWN}"),
        ("unknown", "activations", "seeds=[0]", f"interpretation.layout: networks.small: layer 'layer': {UNKNOWN}"),
        (
            "unknown",
            "activations",
            "seeds=[0]",
            "set `layout` to channels-first or channels-last, or name another layer",
        ),
        (
            "channels-last",
            "interpretation",
            "activations.layout=tokens",
            "activations.layout: networks.small: layer 'layer': expected channels-first or channels-last for an output",
        ),
        (
            "channels-last",
            "activations",
            "interpretation.layout=tokens",
            "interpretation.layout: networks.small: layer 'layer': expected channels-first or channels-last for an",
        ),
        (
            "tokens",
            "activations",
            "interpretation.tokens=line",
            "interpretation.gallery: expected 0 for a layer whose positions are not rows and columns, found 2",
        ),
        (
            "tokens",
            "interpretation",
            "activations.layout={conv: tokens}",
            "layout: expected names from `layers`, found 'conv'",
        ),
        (
            "tokens",
            "activations",
            "interpretation.tokens=[3, 2]",
            "expected a grid of at most the 4 tokens of the layer, found 3 x 2; set `interpretation.tokens`",
        ),
        ("tokens", "activations", "interpretation.tokens=[0, 2]", "interpretation.tokens"),
        ("tokens", "activations", "interpretation.tokens=rows", "interpretation.tokens"),
        ("tokens", "interpretation", "activations.layout=rows", "activations.layout"),
        ("tokens", "activations", "interpretation.layout={layer: tokens}", "interpretation.layout"),
    ],
)
def test_a_layout_that_cannot_be_is_refused_by_the_plan(
    write: Write, tiny_tree: Tree, tmp_path: Path, layout: str, without: str, override: str, expected: str
) -> None:
    tree = planted(tiny_tree, tmp_path, layout)
    del tree[without]
    text = refused(layerlore("plan", write(tree), "--set", override))
    assert expected in " ".join(text.split())
    assert not Path(tree["store"]).exists()


@pytest.mark.parametrize("layout", ["channels-first", "channels-last", "tokens"])
def test_what_is_known_is_planned(write: Write, tiny_tree: Tree, tmp_path: Path, layout: str) -> None:
    tree = planted(tiny_tree, tmp_path, layout)
    assert layerlore("plan", write(tree)).exit_code == 0


def test_gates_on_a_last_map_with_channels_last_are_refused(write: Write, tiny_tree: Tree, tmp_path: Path) -> None:
    tree = planted(tiny_tree, tmp_path, "channels-last")
    del tree["activations"], tree["networks"]["small"]["weights"]
    train = {
        "data": "digits",
        "epochs": 1,
        "optimizer": {"lr": 0.1},
        "gates": {"lr": 0.1, "plain_epochs": 0, "period": 1},
    }
    tree["networks"]["small"]["train"] = train
    text = " ".join(refused(layerlore("plan", write(tree))).split())
    assert "gates: expected the last map before pooling as channels-first, found relu in layer as channels-last" in text
