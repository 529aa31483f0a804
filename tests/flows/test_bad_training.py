"""Bad settings of a training: one line that names the key, before anything runs."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml

from configs.load import ConfigError, load_config
from flows.progress import planned_stages
from tests.tasks.odd_networks import Net

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
NewRun = Callable[[Tree], "Run"]

SGD = {"kind": "sgd", "lr": 0.1}
BAD: list[tuple[str, object, str]] = [
    (
        "optimizer",
        {"kind": "rmsprop", "lr": 0.1},
        "optimizer: kind: expected one of sgd, adam, adamw, sam, found 'rmsprop'",
    ),
    ("optimizer", {"kind": 3}, "optimizer: kind: expected one of sgd, adam, adamw, sam, found 3"),
    ("optimizer", 3, "optimizer: expected a mapping such as {kind: sgd}, found int"),
    ("optimizer", {"kind": "sam"}, "optimizer.lr: required, but missing"),
    ("optimizer", {**SGD, "rho": 0.1}, "optimizer.rho: unknown key"),
    ("optimizer", {**SGD, "momentum": 1.0}, "optimizer.momentum: input should be less than 1, found 1.0"),
    ("optimizer", {**SGD, "nesterov": True}, "optimizer: nesterov: expected a momentum above 0, found 0"),
    ("optimizer", {"kind": "adam", "betas": [0.9, 1.0]}, "optimizer.betas.1: input should be less than 1, found 1.0"),
    ("optimizer", {"kind": "sam", "lr": 0.1, "rho": 0}, "optimizer.rho: input should be greater than 0, found 0"),
    (
        "schedule",
        {"kind": "linear"},
        "schedule: kind: expected one of constant, step, milestones, cosine, found 'linear'",
    ),
    ("schedule", {"kind": "step"}, "schedule.every: required, but missing"),
    ("schedule", {"kind": "milestones", "at": [4, 2]}, "schedule: at: expected epochs in rising order, found [4, 2]"),
    ("schedule", {"kind": "cosine", "warmup": 2}, ": schedule.warmup: expected fewer than all 2 epochs, found 2"),
    ("clip", 0, "clip: input should be greater than 0, found 0"),
    (
        "batches",
        {"kind": "mixed"},
        "batches: kind: expected one of shuffled, single-class, single-example, found 'mixed'",
    ),
    (
        "batches",
        {"kind": "single-class", "size": 0},
        "batches.size: input should be greater than or equal to 1, found 0",
    ),
    ("batches", {"kind": "single-class", "ghosts": -1}, "batches.ghosts: input should be greater than or equal to 0"),
    (
        "batches",
        {"kind": "single-class", "ghost_norm": "printed"},
        "batches.ghost_norm: input should be 'corrected' or",
    ),
    ("batches", {"kind": "single-example", "size": 2}, "batches.size: unknown key"),
    ("batches", {"size": 4, "ghosts": 2}, "batches.ghosts: unknown key"),
    ("augment", {"pad": -1}, "augment.pad: input should be greater than or equal to 0, found -1"),
    ("augment", {"rotate": 3}, "augment.rotate: unknown key"),
    ("snapshots", [3, 3], ": snapshots: expected different entries, found the same one twice"),
    ("snapshots", [-1], "snapshots.0: input should be greater than or equal to 0, found -1"),
    ("record", {"kind": "none"}, "record.kind: input should be 'auto', 'dense', 'hybrid' or 'replay', found 'none'"),
    (
        "record",
        {"steps": [[5, 3]]},
        "record: steps: expected ranges [first, past the end] in rising order, found [[5, 3]]",
    ),
    ("record", {"steps": [[0, 5], [3, 9]]}, "record: steps: expected ranges [first, past the end] in rising"),
    ("record", {"layers": ["fc", "fc"]}, "record: layers: expected different entries, found the same one twice"),
    ("record", {"archive_budget": "much"}, "record.archive_budget: string should match pattern"),
]


def message(tree: Tree, folder: Path) -> str:
    """Return what loading a config says, without the file's name."""
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError) as caught:
        load_config(str(path))
    text = str(caught.value)
    assert len(text.splitlines()) <= 4, text
    return text.replace(f"{path}: ", "")


@pytest.mark.parametrize(("key", "value", "expected"), BAD)
def test_a_bad_setting_is_named(tiny_tree: Tree, tmp_path: Path, key: str, value: object, expected: str) -> None:
    tree = copy.deepcopy(tiny_tree)
    tree["networks"]["small"]["train"][key] = value
    found = message(tree, tmp_path)
    place = "networks.small.train"
    lines = [line.removeprefix(place).removeprefix(".") for line in found.splitlines()]
    assert any(line.startswith(expected) for line in lines), found
    assert all(line.startswith(place) for line in found.splitlines())


def test_more_ghosts_than_samples_are_refused_by_the_plan(tiny_tree: Tree, new_run: NewRun) -> None:
    tiny_tree["networks"]["small"]["train"]["batches"] = {"kind": "single-class", "ghosts": 121}
    with pytest.raises(ConfigError, match=r"batches\.ghosts: expected at most the 120 samples, found 121"):
        planned_stages(new_run(tiny_tree).plan, None)


def test_an_mlp_of_the_wrong_size_is_refused_by_the_plan(tiny_tree: Tree, new_run: NewRun) -> None:
    tiny_tree["networks"]["small"] |= {"model": "mlp", "arguments": {"sizes": [63, 10]}}
    del tiny_tree["interpretation"]
    with pytest.raises(ConfigError, match=r"networks\.small: .*shapes cannot be multiplied"):
        planned_stages(new_run(tiny_tree).plan, None)


ALONE: list[tuple[str, dict[str, Any], str | None]] = [  # 120 samples, 12 of each class
    ("pooled_norm", {"size": 119}, "size: 119 leaves a batch of 1 of the 120 samples of split 'train'"),
    ("pooled_norm", {"size": 7}, "size: 7 leaves a batch of 1 of the 120 samples of split 'train'"),
    ("pooled_norm", {"size": 1}, "size: 1 leaves a batch of 1 of the 120 samples of split 'train'"),
    ("pooled_norm", {"size": 16}, None),
    ("pooled_norm", {"size": 121}, None),
    ("pooled_norm", {"kind": "single-example"}, "kind: single-example makes batches of 1 sample"),
    (
        "pooled_norm",
        {"kind": "single-class", "size": 11, "ghosts": 0},
        "size: 11 leaves a batch of 1 of the 12 samples of class 0 in split 'train'",
    ),
    ("pooled_norm", {"kind": "single-class", "size": 11, "ghosts": 1}, None),
    ("pooled_norm", {"kind": "single-class", "size": 12, "ghosts": 0}, None),
    ("map_norm", {"size": 7}, None),  # 64 values of a channel in one sample
    ("map_norm", {"kind": "single-example"}, None),
    ("Net", {"size": 1}, None),
]


@pytest.mark.parametrize(("network", "batches", "expected"), ALONE)
def test_a_sample_alone_under_batch_norm_is_refused_by_the_plan(
    tiny_tree: Tree, new_run: NewRun, network: str, batches: dict[str, Any], expected: str | None
) -> None:
    tiny_tree["networks"]["small"] |= {"model": f"tests.tasks.odd_networks:{network}", "arguments": {}}
    tiny_tree["networks"]["small"]["train"]["batches"] = batches
    plan = new_run(tiny_tree).plan
    if expected is None:
        assert planned_stages(plan, None)
        return
    with pytest.raises(ConfigError) as error:
        planned_stages(plan, None)
    text = str(error.value)
    assert text.startswith(f"networks.small.train.batches.{expected}, on which the network cannot be trained: batch ")
    assert "batches.size" in text
    assert "\n" not in text


def test_the_size_that_is_proposed_is_taken(tiny_tree: Tree, new_run: NewRun) -> None:
    tiny_tree["networks"]["small"] |= {"model": "tests.tasks.odd_networks:pooled_norm", "arguments": {}}
    tiny_tree["networks"]["small"]["train"]["batches"] = {"size": 17}  # 120 = 7 x 17 + 1, 7 x 16 + 8
    with pytest.raises(ConfigError, match=r"set it so that no batch has 1 sample, such as 16$"):
        planned_stages(new_run(tiny_tree).plan, None)
    tiny_tree["networks"]["small"]["train"]["batches"] = {"size": 16}
    assert planned_stages(new_run(tiny_tree).plan, None)


def test_a_subset_that_leaves_a_sample_alone_is_refused(traced_tree: Tree, new_run: NewRun) -> None:
    network = traced_tree["networks"]["small"]
    network |= {"model": "tests.tasks.odd_networks:pooled_norm", "arguments": {}}
    network["train"]["batches"] = {"size": 29}  # 60 samples: 29, 29, 2; half of them: 29, 1
    with pytest.raises(
        ConfigError, match=r"networks\.small\.train\.batches\.size: 29 leaves a batch of 1 of the 30 sam"
    ):
        planned_stages(new_run(traced_tree).plan, None)


def test_the_training_of_a_decomposed_network_is_looked_at_too(decomposed_tree: Tree, new_run: NewRun) -> None:
    network = decomposed_tree["networks"]["small"]
    network |= {"model": "tests.tasks.odd_networks:pooled_norm", "arguments": {}}
    del network["train"]["gates"]
    decomposed_tree["decomposition"] |= {"k1": [2], "k2": [2]}
    decomposed_tree["decomposition"]["retraining"]["network"]["batches"] = {"size": 7}
    with pytest.raises(ConfigError, match=r"decomposition\.retraining\.network\.batches\.size: 7 leaves a batch of 1"):
        planned_stages(new_run(decomposed_tree).plan, None)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("start", [False, True])
def test_a_network_of_another_precision_is_refused(
    tiny_tree: Tree, new_run: NewRun, tmp_path: Path, dtype: str, start: bool
) -> None:
    network = tiny_tree["networks"]["small"]
    network |= {"model": "tests.tasks.odd_networks:precise", "arguments": {"dtype": dtype}}
    if start:
        torch.save(Net().state_dict(), tmp_path / "w.pt")
        network["train"]["start"] = str(tmp_path / "w.pt")
    with pytest.raises(ConfigError) as error:
        planned_stages(new_run(tiny_tree).plan, None)
    found = f"expected float32, found {dtype} for parameter conv.weight; let its builder return `network.float()`"
    assert str(error.value).startswith(f"networks.small: model 'tests.tasks.odd_networks:precise': {found}")


def test_layers_without_a_size_are_not_trained(tiny_tree: Tree, new_run: NewRun) -> None:
    tiny_tree["networks"]["small"] |= {"model": "tests.tasks.odd_networks:lazy", "arguments": {}}
    with pytest.raises(ConfigError, match=r"networks\.small: expected layers with a size, found 0\.weight without one"):
        planned_stages(new_run(tiny_tree).plan, None)


def test_layers_that_hooks_rename_in_the_state_dict_are_not_recorded(tiny_tree: Tree, new_run: NewRun) -> None:
    network = tiny_tree["networks"]["small"]
    network |= {"model": "tests.tasks.odd_networks:Hooked", "arguments": {}}
    network["train"]["record"] = {}
    with pytest.raises(
        ConfigError, match=r"layer 'fc': expected its weight unchanged in the state dict as 'fc.weight', found a hook"
    ):
        planned_stages(new_run(tiny_tree).plan, None)
    network["train"]["record"] = {"layers": ["conv"]}
    assert planned_stages(new_run(tiny_tree).plan, None)
