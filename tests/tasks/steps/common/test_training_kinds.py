"""Trainings beyond plain SGD as stages: keys, resuming, curves, and what each setting does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from storage.documents import decode
from tasks.cluster.parallel import PartitionError
from tasks.engine.life import complete
from tasks.io.networks import build_model
from tasks.steps.common import trainer
from tasks.steps.common.courses import MEMORY_SAMPLES
from tasks.steps.common.manifest import MANIFEST
from tasks.training.ghost_norm import ghost_rows, with_ghost_norm
from tasks.training.samplers.single_class import SingleClassBatches
from tests.tasks.steps.common.trainings import changed, die_at, file_digests, spec_of, train

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
NewRun = Callable[[Tree], "Run"]

GHOSTS = {"kind": "single-class", "size": 7, "ghosts": 10}
FULL: Tree = {
    "optimizer": {"kind": "adam", "lr": 0.01},
    "schedule": {"kind": "cosine", "warmup": 0.5},
    "clip": 1.0,
    "batches": GHOSTS,
    "augment": {"pad": 1, "flip": True},
}


@pytest.mark.parametrize("kind", ["adam", "sam", "sgd"])
def test_a_killed_training_of_any_kind_gives_the_same_bits(
    tiny_tree: Tree, new_run: NewRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    more = {} if kind == "adam" else {"momentum": 0.9, "nesterov": True, "weight_decay": 0.001}
    tree = changed(tiny_tree, **{**FULL, "optimizer": {"kind": kind, "lr": 0.01, **more}})
    whole = train(new_run({**tree, "store": str(tmp_path / "whole")}))
    die_at(monkeypatch, 3, 7)
    for _ in range(2):
        with pytest.raises(PartitionError, match="killed"):
            train(new_run(tree))
    assert file_digests(train(new_run(tree))) == file_digests(whole)


def test_what_equals_a_default_is_no_part_of_the_key(tiny_tree: Tree, new_run: NewRun, finished_run: "Run") -> None:
    sgd = {"kind": "sgd", "lr": 0.05}
    same: list[Tree] = [
        {"optimizer": {"lr": 0.05}},
        {"optimizer": {**sgd, "momentum": 0.0, "nesterov": False, "weight_decay": 0}},
        {"schedule": {"kind": "constant"}},
        {"clip": None, "augment": None, "record": None, "snapshots": None},
        {"snapshots": 3},
        {"snapshots": [1, 5]},
    ]
    for settings in same:
        assert spec_of(new_run(changed(tiny_tree, **settings))).key == spec_of(finished_run).key, settings
    others: list[Tree] = [
        {"optimizer": {**sgd, "momentum": 0.5}},
        {"optimizer": {**sgd, "weight_decay": 0.1}},
        {"optimizer": {"kind": "sam", "lr": 0.05}},
        {"optimizer": {"kind": "adam", "lr": 0.05}},
        {"schedule": {"kind": "step", "every": 1}},
        {"clip": 1.0},
        {"augment": {"pad": 1}},
        {"batches": {"kind": "single-class"}},
        {"batches": {"kind": "single-example"}},
        {"record": {}},
    ]
    keys = [spec_of(new_run(changed(tiny_tree, **settings))).key for settings in others]
    assert len({*keys, spec_of(finished_run).key}) == len(others) + 1


def test_the_key_of_a_plain_training_is_what_it_was(finished_run: "Run") -> None:
    assert spec_of(finished_run).parameters["train"] == {
        "epochs": 2,
        "optimizer": {"kind": "sgd", "lr": 0.05},
        "batches": {"kind": "shuffled", "size": 16},
        "checkpoint_every": 5,
    }


def test_nested_defaults_are_left_out_of_the_key(tiny_tree: Tree, new_run: NewRun) -> None:
    settings = {
        "optimizer": {"kind": "adamw", "lr": 0.001, "betas": [0.9, 0.999], "weight_decay": 0.5},
        "batches": {"kind": "single-class", "ghosts": 40, "size": 88, "ghost_norm": "as_printed"},
        "augment": {"pad": 0, "flip": True},
        "record": {"kind": "auto", "steps": [[0, 5], [7, 9]], "archive_budget": "1GB"},
    }
    found = spec_of(new_run(changed(tiny_tree, **settings))).parameters["train"]
    assert {key: found[key] for key in settings} == {
        "optimizer": {"kind": "adamw", "weight_decay": 0.5},
        "batches": {"kind": "single-class", "ghost_norm": "as_printed"},
        "augment": {"flip": True},
        "record": {"kind": "auto", "steps": [[0, 5], [7, 9]]},
    }


def test_the_learning_rate_stands_in_the_curves_where_it_changes(
    tiny_tree: Tree, new_run: NewRun, finished_run: "Run"
) -> None:
    schedule = {"kind": "step", "every": 1, "factor": 0.1}
    files = train(new_run(changed(tiny_tree, schedule=schedule, epochs=3))) / "files"
    curves = pd.read_parquet(files / "epochs.parquet")
    assert list(curves.columns) == ["epoch", "loss", "accuracy", "lr"]
    np.testing.assert_allclose(curves["lr"], [0.05, 0.005, 0.0005], rtol=1e-12)
    plain = Path(finished_run.config.store, spec_of(finished_run).path, "files/epochs.parquet")
    assert list(pd.read_parquet(plain).columns) == ["epoch", "loss", "accuracy"]
    np.testing.assert_allclose(curves["loss"][0], pd.read_parquet(plain)["loss"][0])  # the first epoch is the same


def test_markers_tell_each_epoch_as_the_table_does(tiny_tree: Tree, new_run: NewRun) -> None:
    folder = train(new_run(changed(tiny_tree, schedule={"kind": "cosine"}, checkpoint_every=3)))
    table = pd.read_parquet(folder / "files/epochs.parquet")
    messages = []
    for path in sorted((folder / "markers").glob("0*.json")):
        messages += decode(path.read_bytes(), "marker")["numbers"]["epochs"]
    pd.testing.assert_frame_equal(pd.DataFrame(messages)[list(table.columns)], table)


@pytest.mark.parametrize("norm", ["corrected", "as_printed"])
def test_single_class_batches_with_ghosts_are_those_of_a_plain_loop(
    tiny_tree: Tree, new_run: NewRun, norm: str
) -> None:
    run = new_run(changed(tiny_tree, batches={**GHOSTS, "ghost_norm": norm, "detach_ghosts": True}))
    weights = load_file(train(run) / "files/weights.safetensors")
    made = trainer.open_trainer(run.job.store, spec_of(run), torch.device("cpu"), MEMORY_SAMPLES)
    inputs, labels = made.samples.fetch(np.arange(120, dtype=np.int64))
    assert torch.equal(labels, torch.arange(10).repeat_interleave(12))  # class-major
    model = build_model("small-cnn", {"width": 4}, 0)
    twin = with_ghost_norm(model, as_printed=norm == "as_printed", detach_ghosts=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, foreach=False)
    batches = SingleClassBatches(labels.numpy(), 0, size=7, ghosts=10)
    for batch in batches.epoch(0) + batches.epoch(1):
        m = len(batch.examples)
        rows = torch.from_numpy(np.concatenate([batch.examples, batch.ghosts]))
        optimizer.zero_grad()
        with ghost_rows(twin.train(), m, 10):
            loss = F.cross_entropy(twin(inputs[rows])[:m], labels[rows[:m]])
        loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
        optimizer.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=1e-5, atol=1e-6)


def test_augmentation_goes_by_sample_id(tiny_tree: Tree, new_run: NewRun) -> None:
    run = new_run(changed(tiny_tree, augment={"pad": 2, "flip": True}))
    complete(run.job, MANIFEST, list(run.plan.shared.manifests.values()))
    made = trainer.open_trainer(run.job.store, spec_of(run), torch.device("cpu"), MEMORY_SAMPLES)
    manifest = Path(run.config.store, next(iter(run.plan.shared.manifests.values())).path, "files/manifest.parquet")
    rows = pd.read_parquet(manifest).query("split == 'train'").sort_values(["label_given", "id"], kind="stable")
    ids = made.samples.ids
    assert ids is not None
    np.testing.assert_array_equal(ids, rows["id"])
    assert made.augment is not None
    inputs, _ = made.samples.fetch(np.arange(5, dtype=np.int64))
    whole = made.augment(inputs, ids[:5], 1)
    assert torch.equal(made.augment(inputs[2:3], ids[2:3], 1)[0], whole[2])
    assert not torch.equal(made.augment(inputs, ids[:5], 0), whole)


@pytest.mark.parametrize(
    ("model", "arguments", "batches"),
    [
        ("mlp", {"sizes": [64, 16, 10], "bias": False}, {"kind": "single-example"}),
        ("mlp", {"sizes": [64, 16, 10]}, GHOSTS),  # ghosts without batch norm
        ("small-cnn", {"width": 4}, {"kind": "single-class", "size": 12, "ghosts": 0}),  # batch norm without ghosts
    ],
)
def test_networks_learn_whatever_the_batches(
    tiny_tree: Tree, new_run: NewRun, model: str, arguments: Tree, batches: Tree
) -> None:
    tree = changed(tiny_tree, batches=batches, epochs=3)
    tree["networks"]["small"] |= {"model": model, "arguments": arguments}
    del tree["interpretation"]
    folder = train(new_run(tree))
    curves = pd.read_parquet(folder / "files/epochs.parquet")
    assert len(curves) == 3
    assert np.isfinite(curves["loss"]).all()
    if batches["kind"] == "single-example":
        assert curves["accuracy"].iloc[-1] > 0.6
        steps = sum(len(json.loads(p.read_text())["numbers"]["losses"]) for p in (folder / "markers").glob("0*.json"))
        assert steps == 360
