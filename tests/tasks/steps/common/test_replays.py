"""Trainings of a config with a replay archive: the same training, and the updates of its dense archive bit for bit."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from storage.stages import open_finished
from tasks.cluster.parallel import PartitionError
from tasks.recording import ReplayMismatch
from tasks.steps.common.recording import archive_size
from tasks.steps.common.replays import open_archive
from tasks.steps.common.survey import PlanSurvey
from tasks.steps.common.training import TRAINING
from tasks.training import loop
from tests.tasks.steps.common.test_training_kinds import FULL
from tests.tasks.steps.common.trainings import changed, die_at, file_digests, spec_of, train

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
NewRun = Callable[[Tree], "Run"]
SETTINGS: dict[str, Tree] = {
    "sgd": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.001},
    "sam": {"momentum": 0.5},
    "adam": {},
    "adamw": {"weight_decay": 0.1},
}


def updates(run: "Run", segment: int) -> dict[str, Tensor]:
    """Return the weights (and biases) of all layers in a segment."""
    source = open_archive(run.job.store, spec_of(run))
    found: dict[str, list[Tensor]] = {}
    for block in source.blocks(source.segments()[segment]):
        found.setdefault(f"{block.layer}.weight", []).append(block.weights[1:])
        if block.biases is not None:
            found.setdefault(f"{block.layer}.bias", []).append(block.biases[1:])
    return {name: torch.cat(parts) for name, parts in found.items()}


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_replay_gives_the_dense_archive(tiny_tree: Tree, new_run: NewRun, tmp_path: Path, kind: str) -> None:
    optimizer = {"kind": kind, "lr": 0.01, **SETTINGS[kind]}
    runs = {}
    for name in ("dense", "replay"):
        tree = changed(tiny_tree, **{**FULL, "optimizer": optimizer}, record={"kind": name})
        runs[name] = new_run({**tree, "store": str(tmp_path / name)})
        train(runs[name])
    plain = new_run({**changed(tiny_tree, **{**FULL, "optimizer": optimizer}), "store": str(tmp_path / "plain")})
    weights = {name: (train(run) / "files/weights.safetensors").read_bytes() for name, run in runs.items()}
    assert {*weights.values()} == {(train(plain) / "files/weights.safetensors").read_bytes()}
    source = open_archive(runs["replay"].job.store, spec_of(runs["replay"]))
    assert source.kind == "replay"
    segments = range(len(source.segments()))
    assert len(segments) > 1
    for segment in reversed(segments):
        replayed, recorded = (updates(runs[name], segment) for name in ("replay", "dense"))
        assert replayed.keys() == recorded.keys()
        assert all(torch.equal(replayed[name], recorded[name]) for name in recorded)
    assert open_finished(runs["replay"].job.store, spec_of(runs["replay"])).summary["archive"] == "replay"


def test_gates_are_replayed(tiny_tree: Tree, new_run: NewRun, tmp_path: Path) -> None:
    gates = {"lr": 0.05, "plain_epochs": 0, "period": 1}
    runs = {}
    for name in ("dense", "replay"):
        tree = changed(tiny_tree, gates=gates, record={"kind": name})
        runs[name] = new_run({**tree, "store": str(tmp_path / name)})
        train(runs[name])
    replayed, recorded = (updates(runs[name], 1) for name in ("replay", "dense"))
    assert all(torch.equal(replayed[name], recorded[name]) for name in recorded)


def test_a_killed_training_goes_on_with_the_same_files(
    tiny_tree: Tree, new_run: NewRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tree = changed(tiny_tree, record={"kind": "replay"})
    whole = train(new_run({**tree, "store": str(tmp_path / "whole")}))
    die_at(monkeypatch, 3, 7)
    for _ in range(2):
        with pytest.raises(PartitionError, match="killed"):
            train(new_run(tree))
    again = train(new_run(tree))

    def named(folder: Path) -> dict[str, str]:
        return {name.split("-")[0] + name[-12:]: value for name, value in file_digests(folder).items()}

    assert named(again) == named(whole)


def test_auto_takes_a_replay_where_the_updates_exceed_the_budget(tiny_tree: Tree, new_run: NewRun) -> None:
    run = new_run(changed(tiny_tree, record={"archive_budget": "5kB"}))
    spec, survey = spec_of(run), PlanSurvey(run.job.store)
    values = sum(p.numel() for p in survey.blank(spec).parameters() if p.ndim)
    assert archive_size(spec, survey)[0] == "replay"
    assert "archive of kind replay" in TRAINING.size(spec, survey).note
    roomy = new_run(changed(tiny_tree, record={"archive_budget": f"{5 * 4 * 100 * values}B"}))
    assert archive_size(spec_of(roomy), PlanSurvey(run.job.store))[0] == "dense"
    train(run)
    assert open_archive(run.job.store, spec).kind == "replay"


@pytest.mark.parametrize("budget", ["20GB", "5kB"])
def test_a_training_that_is_not_deterministic_is_no_replay(
    tiny_tree: Tree, new_run: NewRun, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], budget: str
) -> None:
    original, noise = loop.Trainer._step, torch.Generator().manual_seed(0)

    def noisy(trainer: loop.Trainer, *given: Any) -> float:  # Any: passed on
        loss = original(trainer, *given)
        with torch.no_grad():
            next(trainer.model.parameters()).add_(torch.rand(1, generator=noise))
        return loss

    monkeypatch.setattr(loop.Trainer, "_step", noisy)
    run = new_run(changed(tiny_tree, record={"kind": "replay", "archive_budget": budget}))
    if budget == "5kB":  # the digests of a replay fit, rounded updates do not
        with pytest.raises(PartitionError, match="archive_budget: expected at least"):
            train(run)
        return
    train(run)
    assert {segment.kind for segment in open_archive(run.job.store, spec_of(run)).segments()} == {"hybrid"}
    assert "archive of kind hybrid: " in capfd.readouterr().err


def test_changed_data_is_named(tiny_tree: Tree, new_run: NewRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_run(changed(tiny_tree, record={"kind": "replay"}))
    train(run)
    source = open_archive(run.job.store, spec_of(run))
    original = loop.Trainer._step

    def shifted(trainer: loop.Trainer, step: int, *given: Any) -> float:  # Any: passed on
        if step == 7:
            with torch.no_grad():
                next(trainer.model.parameters()).mul_(1 + 1e-6)
        return original(trainer, step, *given)

    monkeypatch.setattr(loop.Trainer, "_step", shifted)
    list(source.blocks(source.segments()[0]))
    with pytest.raises(ReplayMismatch) as caught:
        list(source.blocks(source.segments()[1]))
    assert (caught.value.step, caught.value.layer) == (7, source.layers[0])
