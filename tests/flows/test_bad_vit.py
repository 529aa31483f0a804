"""What a vision transformer cannot answer: a line that names the key, exit code 2, and no store."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.flows.command import Tree, Write, layerlore, refused
from tests.vits import BLOCK, asked


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"interpreters": {"vebi": {}, "ice": {}}},
            "interpretation.interpreters.vebi: networks.small: expected at least one ReLU up to the layer, found none; "
            "VEBI selects outputs of ReLUs: leave it out, and take ice or topics",
        ),
        ({"layer": "encoder.ln"}, "layer 'encoder.ln': expected layers after it that read the 16 patches, found that"),
        ({"layer": "encoder.layers.encoder_layer_2"}, "read only the 1 set apart; name an earlier block"),
        ({"layer": f"{BLOCK}.mlp.1"}, f"layer '{BLOCK}.mlp.1': expected a layer that every path passes through, found"),
        ({"layer": "last-map"}, "name a module, such as the block encoder.layers.encoder_layer_1"),
        ({"tokens": [5, 4]}, "expected a grid of at most the 17 tokens of the layer, found 5 x 4"),
        ({"tokens": [4]}, "interpretation.tokens"),
        ({"interpreters": {"ice": {"negative": "split"}}}, "negative: expected clamp, shift or refuse, found 'split'"),
    ],
)
def test_what_a_transformer_cannot_answer_is_refused_by_the_plan(
    write: Write, tiny_tree: Tree, settings: Mapping[str, Any], expected: str
) -> None:
    text = refused(layerlore("plan", write(asked(tiny_tree, **settings))))
    assert expected in " ".join(text.split())
    assert not Path(tiny_tree["store"]).exists()


@pytest.mark.usefixtures("wide")
def test_the_plan_says_how_tokens_are_read(write: Write, tiny_tree: Tree) -> None:
    result = layerlore("plan", write(asked(tiny_tree)))
    assert f"{BLOCK} of small: 4 x 4 patches, 1 token set apart, 12 channels" in " ".join(result.stdout.split())
