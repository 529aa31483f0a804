"""Adversarial trainings as stages: resuming, recording, snapshots, curves, keys and refusals."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.nn import functional as F

from configs.load import ConfigError, load_config
from flows.progress import planned_stages
from storage.stages import open_finished, read_marker
from tasks.cluster.parallel import PartitionError
from tasks.engine.life import complete
from tasks.io.networks import build_model
from tasks.io.randomness import seeded
from tasks.recording.sources import update_source
from tasks.steps.common import trainer
from tasks.steps.common.courses import MEMORY_SAMPLES
from tasks.steps.common.snapshots import SNAPSHOTS
from tasks.training.adversarial import pgd
from tasks.training.step_seeds import step_seed
from tests.tasks.steps.common.trainings import changed, die_at, file_digests, spec_of, train

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
NewRun = Callable[[Tree], "Run"]

ADVERSARY = {"epsilon": 0.1, "step": 0.05, "steps": 2, "evaluation": {"steps": 2, "restarts": 2, "count": 11}}
OPTIMIZERS = [
    {"kind": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01},
    {"kind": "sam", "lr": 0.05, "momentum": 0.9},
    {"kind": "adam"},
    {"kind": "adamw"},
]


def attacked(tree: Tree, **settings: object) -> Tree:
    """Return a config with an adversary, and other settings of its training."""
    other = changed(tree, adversary=ADVERSARY, **settings)
    other["networks"]["small"]["preprocessing"] = {"mode": "L", "mean": [0.3], "std": [0.4]}
    return other


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda settings: settings["kind"])
@pytest.mark.parametrize("batches", [{"size": 16}, {"kind": "single-class", "size": 7, "ghosts": 10}])
def test_a_killed_adversarial_training_gives_the_same_bits(
    tiny_tree: Tree, new_run: NewRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: Tree, optimizer: Tree
) -> None:
    rest = {"clip": 1.0, "augment": {"pad": 1}, "record": {}, "schedule": {"kind": "cosine"}}
    tree = attacked(tiny_tree, batches=batches, optimizer=optimizer, epochs=1, **rest)
    whole = train(new_run({**tree, "store": str(tmp_path / "whole")}))
    with monkeypatch.context() as patch:
        die_at(patch, 2)
        with pytest.raises(PartitionError, match="killed"):
            train(new_run(tree))
    run = new_run(tree)
    assert file_digests(train(run)) == file_digests(whole)
    source = update_source(open_finished(run.job.store, spec_of(run)))
    for layer in source.layers:
        blocks = [block.dense() for segment in source.segments() for block in source.blocks(segment, [layer])]
        total = source.initial(layer).double() + torch.cat(blocks).double().sum(0)
        torch.testing.assert_close(total, source.final(layer).double(), rtol=0, atol=1e-5)


def test_the_loss_of_a_step_is_that_of_attacked_images(tiny_tree: Tree, new_run: NewRun) -> None:
    run = new_run(attacked(tiny_tree))
    train(run)
    made = trainer.open_trainer(run.job.store, spec_of(run), torch.device("cpu"), MEMORY_SAMPLES)
    inputs, labels = made.samples.fetch(made.samples.batches.batch(0).examples)
    model = build_model("small-cnn", {"width": 4}, 0)
    images = (inputs * 0.4 + 0.3).clamp(0, 1)
    normalised = torch.nn.Sequential(Normalise(), model)
    with seeded(step_seed(0, 0), torch.device("cpu")):
        found = pgd(normalised, images, labels, epsilon=0.1, step=0.05, steps=2)
    expected = float(F.cross_entropy(normalised(found), labels).detach())
    (loss,) = made.run(0, 1)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert loss > float(F.cross_entropy(model(inputs), labels).detach()) + 1e-3


class Normalise(torch.nn.Module):
    """The preprocessing of these tests."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images - 0.3) / 0.4


def test_steps_with_two_companions_run_and_show_both_costs(tiny_tree: Tree, new_run: NewRun) -> None:
    tree = attacked(tiny_tree, epochs=2, gates={"lr": 0.5, "plain_epochs": 0, "period": 2})
    run = new_run(tree)
    folder = train(run)
    record = read_marker(run.job.store, spec_of(run).path, 0)["numbers"]
    assert set(record["step_seconds"]) == {"plain", "gating", "adversary"}
    assert min(record["step_seconds"].values()) > 0
    gates = load_file(folder / "files" / "gates.safetensors")["gates"]
    assert gates.amax(1).tolist() == [1.0] * 8


def test_curves_hold_the_robust_accuracy_and_snapshots_are_bitwise(tiny_tree: Tree, new_run: NewRun) -> None:
    run = new_run(attacked(tiny_tree, epochs=3, snapshots=[7, 24], optimizer={"kind": "sgd", "lr": 0.2}))
    folder = train(run)
    curves = pd.read_parquet(folder / "files" / "epochs.parquet")
    assert list(curves.columns) == ["epoch", "loss", "accuracy", "robust_accuracy"]
    assert set(np.round(curves["robust_accuracy"] * 11, 9) % 1) == {0.0}  # of 11 images
    stages = complete(run.job, SNAPSHOTS, run.plan.shared.snapshots)
    assert [stage.summary["step"] for stage in stages] == [7, 24]


def test_an_adversary_without_a_ball_is_the_plain_training(tiny_tree: Tree, new_run: NewRun, tmp_path: Path) -> None:
    tiny = {**ADVERSARY, "epsilon": 1e-9, "step": 1e-9}
    tree = attacked(tiny_tree)
    plain = copy.deepcopy(tree) | {"store": str(tmp_path / "plain")}
    tree["networks"]["small"]["train"]["adversary"] = tiny
    del plain["networks"]["small"]["train"]["adversary"]
    curves = [pd.read_parquet(train(new_run(each)) / "files" / "epochs.parquet") for each in (tree, plain)]
    np.testing.assert_allclose(curves[0]["loss"], curves[1]["loss"], rtol=1e-4)


def test_only_settings_that_differ_from_their_defaults_are_in_the_key(tiny_tree: Tree, new_run: NewRun) -> None:
    assert "adversary" not in spec_of(new_run(tiny_tree)).parameters["train"]
    spec = spec_of(new_run(changed(tiny_tree, adversary={})))
    assert spec.parameters["train"]["adversary"] == {}
    full = {"epsilon": 8 / 255, "step": 2 / 255, "steps": 7, "evaluation": {"steps": 50, "restarts": 2, "count": 500}}
    assert spec_of(new_run(changed(tiny_tree, adversary=full))).key == spec.key
    assert spec_of(new_run(changed(tiny_tree, adversary={"steps": 6}))).key != spec.key


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epsilon": 0}, ".adversary.epsilon: input should be greater than 0, found 0"),
        ({"epsilon": 2}, ".adversary.epsilon: input should be less than or equal to 1, found 2"),
        ({"steps": 0}, ".adversary.steps: input should be greater than or equal to 1, found 0"),
        ({"norm": "l2"}, ".adversary.norm: unknown key"),
    ],
)
def test_bad_settings_are_one_line_that_names_the_key(
    tiny_tree: Tree, tmp_path: Path, settings: Tree, message: str
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(yaml.safe_dump(changed(tiny_tree, adversary=settings)))
    with pytest.raises(ConfigError) as error:
        load_config(str(file))
    (line,) = [line for line in str(error.value).splitlines() if "networks.small.train" in line]
    assert message in line


def test_inputs_that_are_not_images_in_0_to_1_are_refused_by_the_plan(tiny_tree: Tree, new_run: NewRun) -> None:
    tree = attacked(tiny_tree)
    tree["networks"]["small"]["preprocessing"] = {"mode": "L", "mean": [-0.5]}
    run = new_run(tree)
    with pytest.raises(ConfigError, match=r"networks\.small: adversary: expected images in \[0, 1\] before") as error:
        list(planned_stages(run.plan, run.job.store))
    assert "\n" not in str(error.value)
