"""The sentences about who taught a neuron its concept."""

import json
from typing import Any

import pandas as pd
import pytest

from tasks.report.concepts.taught import REST, Taught, taught_block

AT = {"network": "net", "seed": 0, "layer": "3", "neuron": 2}


def block(shares: dict[str, float], anchor: str) -> dict[str, Any]:  # Any: of a script
    """Return what the page shows of one neuron, taught in two parts of the training with a snapshot at each end."""
    facts = {"operation": "conv", "images": 4, "square": 2.0, "init": -0.3, "decay": 0.0, "anchor": anchor}
    classes = [
        {**AT, "start": start, "end": end, "epoch": 1, "class_name": name, "share": share / 2}
        for start, end in ((0, 5), (5, 10))
        for name, share in shares.items()
    ]
    columns = ("end", "rank", "sample_id", "key", "class_name", "gamma", "share", "picture")
    examples = pd.DataFrame({**{key: [] for key in AT}, **{column: [] for column in columns}})
    monitor = pd.DataFrame([{**AT, "snapshot": number, "step": 5 * number} for number in range(3)])
    found = taught_block(Taught(pd.DataFrame([{**AT, **facts}]), examples, pd.DataFrame(classes)), monitor)
    neuron: dict[str, Any] = json.loads(json.dumps(found.data["net 0 3:2"], ensure_ascii=False).replace("\xa0", " "))
    return neuron


def test_the_rest_of_the_classes_is_not_named_as_one() -> None:
    found = block({REST: 0.5, "cat": 0.2, "dog": 0.1, "cow": -0.1}, "final")
    assert found["lead"].startswith("Most from class cat (+20.00 %) and dog (+10.00 %), most against it class cow (−10")
    assert found["since"] == ["", "cat: +10.00 %, dog: +5.00 %", "cat: +10.00 %, dog: +5.00 %"]
    assert [name for name, _ in found["curves"]] == ["cat", "dog", "cow"]


@pytest.mark.parametrize(
    ("anchor", "initial", "of"),
    [
        ("final", True, "Shares are of its squared response before the nonlinearity, on"),
        (
            "displacement",
            False,
            "Shares are of what training added to its response before the nonlinearity, squared, on",
        ),
    ],
)
def test_the_anchor_says_what_shares_are_of(anchor: str, initial: bool, of: str) -> None:
    lead = block({"cat": 0.2}, anchor)["lead"]
    assert ("the initial weights −30.00 %" in lead) == initial
    assert of in lead
