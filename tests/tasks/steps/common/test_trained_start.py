"""Trainings that start from the end of another network's training: weights, heads, order, keys, refusals."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from configs.load import ConfigError, load_config
from flows.plan import make_plan
from storage.specs import StageSpec
from tasks.cluster.parallel import PartitionError
from tasks.engine.life import complete
from tasks.io.networks import build_model
from tasks.io.tensors import unpack_tensors
from tasks.steps.common.manifest import MANIFEST
from tasks.steps.common.snapshots import SNAPSHOTS, snapshot_file
from tasks.steps.common.training import TRAINING
from tests.tasks.steps.common.trainings import die_at, file_digests

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
NewRun = Callable[[Tree], "Run"]


def tuned(tree: Tree, *, first: bool = False, **settings: object) -> Tree:
    """Return a config with a second network `tuned` that starts from `small`, written before or after it."""
    other = copy.deepcopy(tree)
    network = copy.deepcopy(other["networks"]["small"])
    network["train"] |= {"start": {"network": "small"}, **settings}
    pair = {"tuned": network, "small": other["networks"]["small"]}
    other["networks"] = pair if first else dict(reversed(pair.items()))
    return other


def trained(run: "Run", name: str) -> Path:
    """Make a training of a run, with what it starts from, and return its folder."""
    complete(run.job, MANIFEST, list(run.plan.shared.manifests.values()))
    spec = run.plan.shared.trainings[name, 0]
    for one in [spec.inputs["start"], spec] if "start" in spec.inputs else [spec]:
        complete(run.job, TRAINING, [one])
    return Path(run.config.store, spec.path)


def first_weights(run: "Run") -> dict[str, Tensor]:
    """Return the weights of `tuned` before its first step, from its snapshot at step 0."""
    trained(run, "tuned")
    stages = [
        one for one in run.plan.shared.snapshots if one.inputs["training"] == run.plan.shared.trainings["tuned", 0]
    ]
    (stage,) = complete(run.job, SNAPSHOTS, stages)
    return unpack_tensors(stage.read_file(snapshot_file(0)))


def final_weights(run: "Run", spec: StageSpec) -> dict[str, Tensor]:
    """Return the weights that a finished training ended with."""
    return dict(load_file(Path(run.config.store, spec.path, "files", "weights.safetensors")))


@pytest.mark.parametrize("first", [True, False])
def test_a_training_starts_where_another_ends(tiny_tree: Tree, new_run: NewRun, *, first: bool) -> None:
    run = new_run(tuned(tiny_tree, first=first, snapshots=[0]))
    found, given = first_weights(run), final_weights(run, run.plan.shared.trainings["small", 0])
    assert found.keys() == given.keys()
    assert all(torch.equal(found[name], value) for name, value in given.items())


def test_a_head_of_another_number_of_classes_stays_fresh(tiny_tree: Tree, new_run: NewRun) -> None:
    tree = tuned(tiny_tree, snapshots=[0])
    tree["networks"]["tuned"]["arguments"] = {**tree["networks"]["small"].get("arguments", {}), "classes": 13}
    run = new_run(tree)
    found, given = first_weights(run), final_weights(run, run.plan.shared.trainings["small", 0])
    fresh = build_model("small-cnn", tree["networks"]["tuned"]["arguments"], 0).state_dict()
    assert found["11.weight"].shape[0] == 13
    for name, value in found.items():
        assert torch.equal(value, (fresh if name.startswith("11.") else given)[name]), name


def test_a_killed_fine_tuning_gives_the_same_bits(
    tiny_tree: Tree, new_run: NewRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tuned(tiny_tree)
    whole = file_digests(trained(new_run({**tree, "store": str(tmp_path / "whole")}), "tuned"))
    trained(new_run(tree), "small")
    die_at(monkeypatch, 2)
    with pytest.raises(PartitionError, match="killed"):
        trained(new_run(tree), "tuned")
    assert file_digests(trained(new_run(tree), "tuned")) == whole


def test_the_key_knows_what_the_training_starts_from(tiny_tree: Tree, new_run: NewRun) -> None:
    """A change of the first training changes the second; the first has the key that it has alone."""
    alone = new_run(copy.deepcopy(tiny_tree)).plan.shared.trainings["small", 0].key
    pair = new_run(tuned(tiny_tree)).plan.shared.trainings
    other = copy.deepcopy(tiny_tree)
    other["networks"]["small"]["train"]["optimizer"] = {"kind": "sgd", "lr": 0.011}
    settings = {"optimizer": tiny_tree["networks"]["small"]["train"]["optimizer"]}
    changed = new_run(tuned(other, **settings)).plan.shared.trainings
    assert pair["small", 0].key == alone != pair["tuned", 0].key
    assert changed["tuned", 0].key != pair["tuned", 0].key


def test_a_chain_of_three_is_planned_in_order(tiny_tree: Tree, new_run: NewRun) -> None:
    tree = tuned(tiny_tree, first=True)
    last = copy.deepcopy(tree["networks"]["tuned"])
    last["train"]["start"] = {"network": "tuned"}
    tree["networks"] = {"last": last, **tree["networks"]}
    found = new_run(tree).plan.shared.trainings
    assert [name for name, _ in found] == ["small", "tuned", "last"]
    assert found["last", 0].inputs["start"] == found["tuned", 0]
    assert found["tuned", 0].inputs["start"] == found["small", 0]


def refused(tree: Tree, tmp_path: Path) -> str:
    """Return the one line by which a config is refused."""
    file = tmp_path / "bad.yaml"
    file.write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError) as error:
        make_plan(load_config(str(file)))
    text = str(error.value)
    assert "\n" not in text
    assert not Path(tree["store"]).exists()
    return text


def test_starts_that_cannot_be_are_one_line(tiny_tree: Tree, tmp_path: Path) -> None:
    key = "networks.tuned.train.start.network: "
    unknown = tuned(tiny_tree, start={"network": "smal"})
    assert f"{key}expected one of small, tuned, found 'smal'" in refused(unknown, tmp_path)
    itself = tuned(tiny_tree, start={"network": "tuned"})
    assert f"{key}expected trainings in an order, found tuned from tuned" in refused(itself, tmp_path)
    loop = tuned(tiny_tree)
    loop["networks"]["small"]["train"]["start"] = {"network": "tuned"}
    assert "expected trainings in an order, found small from tuned from small" in refused(loop, tmp_path)
    untrained = tuned(tiny_tree)
    del untrained["networks"]["small"]["train"]
    untrained["networks"]["small"]["weights"] = str(tmp_path / "none.pt")
    assert f"{key}expected a network with `train`, found 'small'" in refused(untrained, tmp_path)
    wider = tuned(tiny_tree)
    wider["networks"]["tuned"]["arguments"] = {"width": 8}
    text = refused(wider, tmp_path)
    assert text.startswith(
        f"{key}weights of network small: expected the weights of the model, found 16 of another shape"
    )
    assert "train.start" in refused(tuned(tiny_tree, start=3), tmp_path)
