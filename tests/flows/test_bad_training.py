"""Bad settings of a training: one line that names the key, before anything runs."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from configs.load import ConfigError, load_config
from flows.progress import planned_stages

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
NewRun = Callable[[Tree], "Run"]

SGD = {"kind": "sgd", "lr": 0.1}
BAD: list[tuple[str, object, str]] = [
    ("optimizer", {"kind": "rmsprop", "lr": 0.1}, "optimizer: kind: unknown 'rmsprop'; known: sgd, adam, adamw, sam"),
    ("optimizer", {"kind": 3}, "optimizer: kind: unknown 3; known: sgd, adam, adamw, sam"),
    ("optimizer", 3, "optimizer: expected a mapping such as {kind: sgd}, found int"),
    ("optimizer", {"kind": "sam"}, "optimizer.lr: required, but missing"),
    ("optimizer", {**SGD, "rho": 0.1}, "optimizer.rho: unknown key"),
    ("optimizer", {**SGD, "momentum": 1.0}, "optimizer.momentum: input should be less than 1, found 1.0"),
    ("optimizer", {**SGD, "nesterov": True}, "optimizer: nesterov: needs a momentum above 0"),
    ("optimizer", {"kind": "adam", "betas": [0.9, 1.0]}, "optimizer.betas.1: input should be less than 1, found 1.0"),
    ("optimizer", {"kind": "sam", "lr": 0.1, "rho": 0}, "optimizer.rho: input should be greater than 0, found 0"),
    ("schedule", {"kind": "linear"}, "schedule: kind: unknown 'linear'; known: constant, step, milestones, cosine"),
    ("schedule", {"kind": "step"}, "schedule.every: required, but missing"),
    ("schedule", {"kind": "milestones", "at": [4, 2]}, "schedule: at: epochs rise, found [4, 2]"),
    ("schedule", {"kind": "cosine", "warmup": 2}, ": schedule.warmup: 2 of 2 epochs leave no time to fall"),
    ("clip", 0, "clip: input should be greater than 0, found 0"),
    ("batches", {"kind": "mixed"}, "batches: kind: unknown 'mixed'; known: shuffled, single-class, single-example"),
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
    ("snapshots", [3, 3], ": snapshots: an entry stands twice"),
    ("snapshots", [-1], "snapshots.0: input should be greater than or equal to 0, found -1"),
    ("record", {"kind": "replay"}, "record.kind: input should be 'auto' or 'dense', found 'replay'"),
    ("record", {"steps": [[5, 3]]}, "record: steps: ranges [first, past the end] rise, found [[5, 3]]"),
    ("record", {"steps": [[0, 5], [3, 9]]}, "record: steps: ranges [first, past the end] rise"),
    ("record", {"layers": ["fc", "fc"]}, "record: layers: an entry stands twice"),
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
    with pytest.raises(ConfigError, match=r"batches\.ghosts: 121 of only 120 training samples; take fewer"):
        planned_stages(new_run(tiny_tree).plan, None)


def test_an_mlp_of_the_wrong_size_is_refused_by_the_plan(tiny_tree: Tree, new_run: NewRun) -> None:
    tiny_tree["networks"]["small"] |= {"model": "mlp", "arguments": {"sizes": [63, 10]}}
    del tiny_tree["interpretation"]
    with pytest.raises(ConfigError, match=r"networks\.small: .*shapes cannot be multiplied"):
        planned_stages(new_run(tiny_tree).plan, None)
