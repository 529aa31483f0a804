"""Trainings with class-specific gates as stages: resuming, files, snapshots, recording, keys and refusals."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from configs.load import ConfigError, load_config
from storage.stages import open_finished
from tasks.cluster.parallel import PartitionError
from tasks.engine.life import complete
from tasks.io.networks import build_model
from tasks.io.tensors import unpack_tensors
from tasks.recording.checkpoints import checkpoint_weights
from tasks.recording.sources import update_source
from tasks.steps.common import trainer
from tasks.steps.common.courses import MEMORY_SAMPLES
from tasks.steps.common.snapshots import SNAPSHOTS, snapshot_file
from tasks.training.gates import ClassGates, Gating
from tests.tasks.steps.common.trainings import changed, die_at, file_digests, spec_of, train
from tests.tasks.training.steps import train_steps

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
NewRun = Callable[[Tree], "Run"]

GATES = {"lr": 0.5, "plain_epochs": 1, "period": 2, "weight": 0.01}  # of three epochs the second
FULL: Tree = {
    "epochs": 3,
    "optimizer": {"kind": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.001},
    "schedule": {"kind": "cosine"},
    "gates": GATES,
}


@pytest.mark.parametrize("batches", [{"size": 16}, {"kind": "single-class", "size": 7, "ghosts": 10}])
def test_a_killed_training_with_gates_gives_the_same_bits(
    tiny_tree: Tree, new_run: NewRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: Tree
) -> None:
    tree = changed(tiny_tree, **{**FULL, "batches": batches, "clip": 1.0, "augment": {"pad": 1}})
    whole = train(new_run({**tree, "store": str(tmp_path / "whole")}))
    with monkeypatch.context() as patch:
        die_at(patch, 3, 5, 8)
        for _ in range(3):
            with pytest.raises(PartitionError, match="killed"):
                train(new_run(tree))
    files = train(new_run(tree)) / "files"
    assert file_digests(files.parent) == file_digests(whole)
    gates = load_file(files / "gates.safetensors")["gates"]
    assert tuple(gates.shape) == (8, 10)
    assert gates.amax(1).tolist() == [1.0] * 8
    assert float(gates.min()) < 1.0


def test_a_training_with_gates_is_that_of_a_plain_loop(tiny_tree: Tree, new_run: NewRun) -> None:
    run = new_run(changed(tiny_tree, **FULL))
    files = train(run) / "files"
    made = trainer.open_trainer(run.job.store, spec_of(run), torch.device("cpu"), MEMORY_SAMPLES)
    model, gates = build_model("small-cnn", {"width": 4}, 0), ClassGates(8, 10)
    gating = Gating(gates, model.get_submodule("8"), weight=0.01, plain_epochs=1, period=2)
    groups: list[dict[str, Any]] = [  # Any: torch's own
        {"params": list(model.parameters())},
        {"params": [gates.weight], "lr": 0.5, "momentum": 0.9, "nesterov": False, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, 0.05, 0.9, nesterov=True, weight_decay=0.001, foreach=False)
    steps = 3 * made.samples.batches.per_epoch
    train_steps(
        model,
        optimizer,
        made.samples.fetch,
        made.samples.batches,
        0,
        steps,
        schedule=made.schedule,
        companions=(gating,),
    )
    stored = load_file(files / "weights.safetensors")
    assert stored.keys() == model.state_dict().keys()  # gates apart: the file stays that of the model
    assert all(torch.equal(stored[name], value) for name, value in model.state_dict().items())
    assert torch.equal(load_file(files / "gates.safetensors")["gates"], gates.weight.detach())


def test_checkpoints_hold_the_gates_beside_the_model(tiny_tree: Tree, new_run: NewRun) -> None:
    run = new_run(changed(tiny_tree, **FULL))
    files = train(run) / "files"
    last = max(files.glob("checkpoint-*"))
    assert checkpoint_weights(last.read_bytes(), "c").keys() == load_file(files / "weights.safetensors").keys()
    assert torch.equal(load_file(last)["gates"], load_file(files / "gates.safetensors")["gates"])
    made = trainer.open_trainer(run.job.store, spec_of(run), torch.device("cpu"), MEMORY_SAMPLES)
    assert "gates" in load_file(last)
    trainer.load_training(made, last.read_bytes())
    assert trainer.pack_training(made) == last.read_bytes()
    (gating,) = made.companions
    velocity = made.optimizer.state[gating.tensors()["gates"]]["momentum_buffer"]
    assert float(velocity.abs().sum()) > 0


@pytest.mark.parametrize("step", [0, 10, 13, 24])
def test_snapshots_of_a_training_with_gates_are_weights_of_its_model(
    tiny_tree: Tree, new_run: NewRun, step: int
) -> None:
    run = new_run(changed(tiny_tree, **FULL, snapshots=[step]))
    files = train(run) / "files"
    (stage,) = complete(run.job, SNAPSHOTS, run.plan.shared.snapshots)
    found = unpack_tensors(stage.read_file(snapshot_file(step)))
    build_model("small-cnn", {"width": 4}, 0).load_state_dict(found)
    same = torch.equal(found["0.weight"], load_file(files / "weights.safetensors")["0.weight"])
    assert same == (step == 24)


def test_a_recorded_training_with_gates_is_the_unrecorded_one(tiny_tree: Tree, new_run: NewRun, tmp_path: Path) -> None:
    plain = train(new_run(changed(tiny_tree, **FULL))) / "files"
    run = new_run(changed(tiny_tree, **FULL, record={}) | {"store": str(tmp_path / "recorded")})
    files = train(run) / "files"
    for name in ("weights.safetensors", "gates.safetensors", "epochs.parquet"):
        assert (files / name).read_bytes() == (plain / name).read_bytes()
    source = update_source(open_finished(run.job.store, spec_of(run)))
    stored = load_file(files / "weights.safetensors")
    for layer in source.layers:
        total = source.initial(layer).double()
        for segment in source.segments():
            for block in source.blocks(segment, [layer]):
                total = total + block.dense().double().sum(0)
        torch.testing.assert_close(total, stored[f"{layer}.weight"].double(), rtol=0, atol=1e-5)
        assert torch.equal(source.final(layer), stored[f"{layer}.weight"])


def test_the_penalty_shows_in_the_loss_and_the_gates_in_the_key(tiny_tree: Tree, new_run: NewRun) -> None:
    plain, gated = new_run(changed(tiny_tree, epochs=3)), new_run(changed(tiny_tree, epochs=3, gates=GATES))
    assert "gates" not in spec_of(plain).parameters["train"]
    assert spec_of(gated).parameters["train"]["gates"] == GATES
    full = {**GATES, "momentum": 0.9, "share": 0.2}
    assert spec_of(new_run(changed(tiny_tree, epochs=3, gates=full))).key == spec_of(gated).key
    losses = []
    for run in (plain, gated):
        train(run)
        files = sorted(Path(run.config.store, spec_of(run).path, "markers").glob("0*.json"))
        losses.append(np.concatenate([json.loads(file.read_text())["numbers"]["losses"] for file in files]))
    np.testing.assert_array_equal(losses[0][:8], losses[1][:8])  # the first epoch is plain
    assert losses[1][8] > losses[0][8]


BAD: list[tuple[Tree, str]] = [
    ({"optimizer": {"kind": "sam", "lr": 0.1}}, ": gates: expected optimizer.kind sgd, found sam; set it"),
    ({"optimizer": {"kind": "adam"}}, ": gates: expected optimizer.kind sgd, found adam; set it to sgd"),
    ({"epochs": 1}, ": gates: expected an epoch with gates within 1 epochs, found the first in epoch 2; train longer"),
    ({"gates": {}}, ".gates.lr: required, but missing"),
    ({"gates": {"lr": 0}}, ".gates.lr: input should be greater than 0, found 0"),
    ({"gates": {"lr": 1, "share": 2}}, ".gates.share: input should be less than or equal to 1, found 2"),
    ({"gates": {"lr": 1, "period": 0}}, ".gates.period: input should be greater than or equal to 1, found 0"),
    ({"gates": {"lr": 1, "lambda": 1}}, ".gates.lambda: unknown key"),
]


@pytest.mark.parametrize(("settings", "message"), BAD)
def test_bad_gates_are_one_line_that_names_the_key(
    tiny_tree: Tree, tmp_path: Path, settings: Tree, message: str
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(yaml.safe_dump(changed(tiny_tree, **{"gates": GATES, **settings})))
    with pytest.raises(ConfigError) as error:
        load_config(str(file))
    (line,) = [line for line in str(error.value).splitlines() if "networks.small.train" in line]
    assert message in line


def test_a_network_without_a_place_for_gates_is_refused(tiny_tree: Tree, new_run: NewRun) -> None:
    tree = changed(tiny_tree, **FULL)
    tree["networks"]["small"] |= {"model": "mlp", "arguments": {"sizes": [64, 8, 10]}}
    del tree["interpretation"]
    with pytest.raises(PartitionError, match="gates: layer 'last-map'"):
        train(new_run(tree))
