"""Bad settings of question 4: one line that names the key, code 2, and nothing is written."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn
from typer.testing import CliRunner

from flows import cli, exits
from tests.flows.command import on_commands, said_by

Tree = dict[str, Any]  # Any: YAML

BAD: list[tuple[str, object, str]] = [
    ("tracing.networks", [], "tracing.networks: tuple should have at least 1 item"),
    ("tracing.networks", ["big"], "tracing.networks: expected one of small, found 'big'"),
    ("tracing.networks", ["small", "small"], "tracing: networks: expected different entries, found the same one twice"),
    ("tracing.units", ["3:1", "3:01"], "tracing.units.1: string should match pattern"),
    ("tracing.units", ["3:\u0663"], "tracing.units.0: string should match pattern"),
    ("tracing.units", ["3:1", "3:1"], "tracing: units: expected different entries, found the same one twice"),
    ("tracing.layers", ["3", "3"], "tracing: layers: expected different entries, found the same one twice"),
    ("tracing.layers", ["9"], "tracing.layers: expected recorded layers (0, 3, 6, 11), found '9'"),
    ("tracing.anchor", "initial", "tracing.anchor: input should be 'final' or 'displacement', found 'initial'"),
    ("tracing.queries.split", "test", "data.digits: expected one of the splits train, val, found 'test'"),
    ("tracing.queries.data", "letters", "tracing.queries.data: expected one of digits, found 'letters'"),
    ("tracing.queries.count", 0, "tracing.queries.count: input should be greater than or equal to 1, found 0"),
    ("tracing.k", 0, "tracing.k: input should be greater than or equal to 1, found 0"),
    (
        "tracing.scores",
        ["gama"],
        "tracing.scores.0: input should be 'gamma', 'cosine', 'logit' or 'tracin', found 'gama'",
    ),
    (
        "tracing.counterfactual",
        {"measure": "unit"},
        "tracing.counterfactual: unit: expected LAYER:INDEX with measure 'unit' and none without, found none",
    ),
    (
        "tracing.counterfactual",
        {"unit": "0:1"},
        "tracing.counterfactual: unit: expected LAYER:INDEX with measure 'unit' and none without, found '0:1' with "
        "measure 'margin'",
    ),
    (
        "tracing.counterfactual",
        {"measure": "unit", "unit": "9:1"},
        "tracing.counterfactual.unit: expected LAYER:INDEX with a recorded layer of 0, 3, 6, 11, found '9:1'",
    ),
    (
        "tracing.counterfactual",
        {"measure": "unit", "unit": "11:10"},
        "tracing.counterfactual.unit: expected 11:0 to 11:9, found '11:10'",
    ),
    ("tracing.tracin", {"measure": "unit", "unit": "0:1"}, "tracing: tracin: expected tracin among `scores`"),
    ("tracing.scores", ["logit"], "tracing: scores: expected gamma among them, found none; add it"),
    ("tracing.window", [7, 7], "tracing: window: expected a first step before the end 7, found 7"),
    ("tracing.window", [-1, 7], "tracing.window.0: input should be greater than or equal to 0, found -1"),
    (
        "tracing.window",
        [60, 70],
        "tracing.window: expected steps that small seed 0 records, found none in 60 to 70; it has 42 steps",
    ),
    (
        "networks.small.train.record",
        {"steps": [[60, 70]]},
        "tracing.window: expected steps that small seed 0 records, found none in 0 to 42; it has 42 steps",
    ),
    (
        "data.digits.noise.share",
        0.001,
        "mislabel: expected flipped and unflipped labels, found 0 of 60 flipped by data.digits.noise.share 0.001",
    ),
    ("data.digits.noise.share", 1, "mislabel: expected flipped and unflipped labels, found 60 of 60 flipped"),
    ("tracing.ridges.bandwidth", 0, "tracing.ridges.bandwidth: input should be greater than 0, found 0"),
    (
        "tracing.ridges.kind",
        "scott",
        "tracing.ridges.kind: input should be 'absolute' or 'scott-factor', found 'scott'",
    ),
    (
        "tracing.counterfactual",
        {"retrainings": 1},
        "counterfactual.retrainings: input should be greater than or equal to",
    ),
    (
        "tracing.counterfactual",
        {"measure": "gap"},
        "counterfactual.measure: input should be 'margin', 'logit', 'loss' or 'unit'",
    ),
    ("tracing.evaluation.lds.subsets", 1, "lds.subsets: input should be greater than or equal to 2, found 1"),
    (
        "tracing.evaluation.lds.share",
        0.05,
        "tracing.evaluation.lds.share: expected enough samples for the batches of small seed 0, found 3, 0.05 of 60: ",
    ),
    ("tracing.evaluation.lds.share", 1.5, "lds.share: input should be less than 1, found 1.5"),
    ("tracing.evaluation.faithful", True, "tracing.evaluation.faithful: unknown key"),
    (
        "networks.small.train.record",
        None,
        "tracing.networks: expected recorded updates of 'small', found none; give it a training with `record`, "
        "such as networks.small.train.record: {kind: auto}",
    ),
    (
        "networks.small.train.record",
        {"layers": ["1"]},
        "networks: record of small seed 0: layer '1': expected one of Linear, Conv1d",
    ),
    (
        "networks.small.train.record",
        {"kind": "dense", "archive_budget": "10kB"},
        "networks: record of small seed 0: archive_budget: expected at least 0.000",
    ),
    (
        "networks.small.train.record",
        {"layers": ["0", "11"]},
        "tracing.layers: expected recorded layers (0, 11), found '3'",
    ),
    (
        "data.digits.noise",
        None,
        "tracing.evaluation.mislabel: expected a network that is trained on flipped labels, found none; "
        "set `noise: {share: 0.1}` in the data set of one",
    ),
    ("data.digits.noise.kind", "permute", "mislabel: expected a network that is trained on flipped labels"),
    ("data.digits.noise.splits", ["val"], "mislabel: expected a network that is trained on flipped labels"),
    (
        "data.digits.noise.splits",
        ["train", "tran"],
        "data.digits: noise.splits: expected one of the splits train, val, found 'tran'",
    ),
    ("data.digits.noise.share", 0, "data.digits.noise.share: input should be greater than 0, found 0"),
    ("data.digits.noise.kind", "swap", "data.digits.noise.kind: input should be 'flip' or 'permute', found 'swap'"),
    (
        "tracing.queries.split",
        "train",
        "tracing.evaluation.randomisation: expected queries with their labels, found a split with permuted labels; ",
    ),
]


def refused(tree: Tree, folder: Path, command: str) -> str:
    """Return what a command says of a config, after checking that it is one line, code 2, and wrote nothing."""
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(tree))
    result = CliRunner().invoke(cli.app, [command, str(path)])
    assert result.exit_code == exits.BAD_CONFIG, (result.exit_code, result.output)
    (line,) = said_by(result)
    assert not Path(tree["store"]).exists()
    return line.removeprefix("error: ").removeprefix(f"{path}: ")


def put(tree: Tree, key: str, value: object) -> None:
    """Set a key of a config; None removes it."""
    *parents, last = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[last] = value
    if value is None:
        del tree[last]


@pytest.mark.parametrize(("command", "key", "value", "expected"), on_commands(BAD))
def test_a_bad_setting_is_one_line(
    traced_tree: Tree, tmp_path: Path, command: str, key: str, value: object, expected: str
) -> None:
    if "layers" in repr(value):
        traced_tree["tracing"]["layers"] = ["3"]
    put(traced_tree, key, value)
    assert expected in refused(traced_tree, tmp_path, command)


@pytest.mark.parametrize("images", ["ids", "none"])
def test_private_training_images_are_no_queries(traced_tree: Tree, tmp_path: Path, images: str) -> None:
    traced_tree |= {"report": {"training_images": images}}
    del traced_tree["tracing"]["evaluation"]
    traced_tree["tracing"]["queries"]["split"] = "train"
    assert refused(traced_tree, tmp_path, "plan") == (
        f"report.training_images: with {images!r} expected queries from a split without training, "
        "found 'train'; set `tracing.queries.split` to another"
    )


@pytest.mark.parametrize("images", ["ids", "none"])
def test_private_training_images_are_not_in_another_data_set(traced_tree: Tree, tmp_path: Path, images: str) -> None:
    traced_tree |= {"report": {"training_images": images}}
    traced_tree["data"]["other"] = {"source": "sklearn-digits", "split": {"fit": 0.5, "val": 0.5}}
    traced_tree["tracing"]["queries"]["data"] = "other"
    assert refused(traced_tree, tmp_path, "plan") == (
        f"tracing.queries.data: with `report.training_images: {images}` expected 'digits', "
        "the training data of 'small', found 'other', which may hold the same images; leave it out"
    )


def test_queries_have_labels_that_the_network_knows(traced_tree: Tree, tmp_path: Path) -> None:
    few = tmp_path / "few.npz"
    np.savez(few, images=np.zeros((24, 8, 8), np.uint8), labels=np.arange(24) % 6)
    traced_tree["data"]["few"] = {"source": "npz", "paths": {"train": str(few), "val": str(few)}}
    traced_tree["networks"]["small"] |= {"model": "mlp", "arguments": {"sizes": [64, 6]}}
    traced_tree["networks"]["small"]["train"] |= {"data": "few", "batches": {"size": 4}}
    traced_tree["tracing"] = {"networks": ["small"], "queries": {"data": "digits"}}
    expected = "tracing.queries.data: data digits: expected labels 0 to 5, as the network has 6 outputs, found 6"
    assert refused(traced_tree, tmp_path, "plan").startswith(expected)


class Called(nn.Module):
    """A network with a layer that is called some number of times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.first, self.again, self.last = nn.Linear(64, 9), nn.Linear(9, 9), nn.Linear(9, 10)
        self.times = times

    def forward(self, images: Tensor) -> Tensor:
        hidden = torch.relu(self.first(images.flatten(1)))
        for _ in range(self.times):
            hidden = torch.relu(self.again(hidden))
        found: Tensor = self.last(hidden)
        return found


@pytest.mark.parametrize(
    ("times", "text"),
    [
        (0, "layer 'again': expected a call in the network's forward, found none"),
    ],
)
def test_a_traced_layer_is_called(traced_tree: Tree, tmp_path: Path, times: int, text: str) -> None:
    traced_tree["networks"]["small"] |= {"model": f"{__name__}:Called", "arguments": {"times": times}}
    expected = f"tracing.layers: networks.small: {text}; name the layers to trace"
    assert refused(traced_tree, tmp_path, "plan") == expected
    traced_tree["tracing"]["layers"] = ["first", "last"]
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(traced_tree))
    assert CliRunner().invoke(cli.app, ["plan", str(path)]).exit_code == 0


def test_a_network_of_given_weights_has_no_updates(traced_tree: Tree, tmp_path: Path) -> None:
    network = {"model": "small-cnn", "weights": "w.pt", "preprocessing": {"mode": "L"}}
    traced_tree["networks"]["given"] = network
    traced_tree["tracing"]["networks"] = ["given"]
    assert refused(traced_tree, tmp_path, "plan").startswith("tracing.networks: expected recorded updates of 'given'")
