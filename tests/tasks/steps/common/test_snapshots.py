"""Snapshots: the weights of a training after any step, bitwise, without a second training."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from storage.documents import decode, encode
from storage.specs import StageSpec
from storage.stages import open_finished
from tasks.cluster.parallel import PartitionError
from tasks.engine.life import complete
from tasks.io.networks import build_model
from tasks.steps.common import snapshots, trainer
from tasks.steps.common.courses import MEMORY_SAMPLES
from tasks.steps.common.manifest import MANIFEST
from tasks.steps.common.snapshots import SNAPSHOTS, snapshot_file, snapshot_specs, snapshot_step
from tasks.steps.common.training import TRAINING

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
NewRun = Callable[[Tree], "Run"]
STEPS = 16  # of the tiny run: 2 epochs of 8


def training_of(run: "Run") -> StageSpec:
    """Return the run's only training."""
    return next(iter(run.plan.shared.trainings.values()))


def weights(run: "Run", spec: StageSpec, step: int) -> dict[str, Tensor]:
    """Return the weights of a snapshot."""
    return dict(load_file(Path(run.config.store, spec.path, "files", snapshot_file(step))))


@pytest.mark.parametrize("settings", [{}, {"optimizer": {"kind": "adam", "lr": 0.01}, "augment": {"pad": 1}}])
def test_every_snapshot_is_what_the_training_passed_through(tiny_tree: Tree, new_run: NewRun, settings: Tree) -> None:
    tiny_tree["networks"]["small"]["train"] |= settings
    run = new_run(tiny_tree)
    training = training_of(run)
    complete(run.job, MANIFEST, list(run.plan.shared.manifests.values()))
    complete(run.job, TRAINING, [training])
    specs = snapshot_specs(training, tuple(range(STEPS + 1)))
    complete(run.job, SNAPSHOTS, specs)
    made = trainer.open_trainer(run.job.store, training, torch.device("cpu"), MEMORY_SAMPLES)
    for step, spec in enumerate(specs):
        found = weights(run, spec, step)
        assert open_finished(run.job.store, spec).summary == {"step": step}
        assert set(found) == set(made.model.state_dict())
        assert all(torch.equal(found[name], value) for name, value in made.model.state_dict().items()), step
        if step < STEPS:
            made.run(step, step + 1)


def test_a_step_that_is_a_checkpoint_is_copied_without_training(
    copied_run: "Run", monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:  # Any: unused
        raise AssertionError("nothing is to be trained")

    monkeypatch.setattr(snapshots, "open_trainer", refuse)
    complete(copied_run.job, SNAPSHOTS, snapshot_specs(training_of(copied_run), (5, 10, 15, 16)))


def test_the_first_is_before_any_update_and_the_last_is_the_result(copied_run: "Run") -> None:
    training = training_of(copied_run)
    first, last = snapshot_specs(training, (0, STEPS))
    complete(copied_run.job, SNAPSHOTS, [first, last])
    fresh = build_model("small-cnn", {"width": 4}, 0).state_dict()
    assert all(torch.equal(value, fresh[name]) for name, value in weights(copied_run, first, 0).items())
    end = Path(copied_run.config.store, training.path, "files/weights.safetensors").read_bytes()
    assert Path(copied_run.config.store, last.path, "files", snapshot_file(STEPS)).read_bytes() == end


def test_evenly_spaced_snapshots_end_with_the_training_and_are_shared(finished_run: "Run") -> None:
    training = training_of(finished_run)
    summary = open_finished(finished_run.job.store, training.inputs["data"]).summary
    three, six = snapshot_specs(training, 3), snapshot_specs(training, 6)
    assert [snapshot_step(spec, summary) for spec in six] == [3, 5, 8, 11, 13, 16]  # 16 i / 6, rounded
    assert [spec.key for spec in three] == [spec.key for spec in six[1::2]]
    assert snapshot_specs(training, None) == []


def test_a_step_beyond_the_end_is_named(finished_run: "Run") -> None:
    training = training_of(finished_run)
    summary = open_finished(finished_run.job.store, training.inputs["data"]).summary
    with pytest.raises(
        ValueError, match=r"train\.snapshots: expected at most 16, the steps of small seed 0, found step 17"
    ):
        snapshot_step(snapshot_specs(training, (17,))[0], summary)


def tamper(run: "Run", number: int, **numbers: object) -> None:
    """Write a partition record of the training again with other metrics."""
    path = Path(run.config.store, training_of(run).path, "markers", f"{number:06d}.json")
    document = decode(path.read_bytes(), "marker")
    document["numbers"].update(numbers)
    path.write_bytes(encode(document))


def test_another_environment_is_refused_where_it_would_train(copied_run: "Run") -> None:
    tamper(copied_run, 1, environment={**trainer.environment(torch.device("cpu")), "torch": "1.0"})
    complete(copied_run.job, SNAPSHOTS, snapshot_specs(training_of(copied_run), (10,)))
    with pytest.raises(PartitionError, match=r"expected torch 1\.0, as for its checkpoint, found") as error:
        complete(copied_run.job, SNAPSHOTS, snapshot_specs(training_of(copied_run), (7,)))
    assert "or choose a snapshot at a multiple of checkpoint_every, 5" in str(error.value)


def test_a_training_that_does_not_repeat_is_noticed(copied_run: "Run") -> None:
    tamper(copied_run, 1, losses=[0.5] * 5)
    with pytest.raises(PartitionError, match=r"step 5: expected loss 0\.5, found [\d.]+"):
        complete(copied_run.job, SNAPSHOTS, snapshot_specs(training_of(copied_run), (7,)))
