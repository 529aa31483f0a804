"""A training of a config whose replay archive has many checkpoints: some are removed, and nothing is lost."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file

from storage.specs import StageSpec
from storage.stages import open_finished
from storage.updates import archives
from storage.verify import verify_stages
from tasks.cluster.parallel import PartitionError
from tasks.engine.life import complete
from tasks.steps.common.replays import open_archive
from tasks.steps.common.snapshots import SNAPSHOTS, snapshot_file, snapshot_specs
from tasks.steps.common.survey import PlanSurvey
from tasks.steps.common.training import TRAINING
from tests.tasks.steps.common.trainings import changed, die_at, spec_of, train

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
NewRun = Callable[[Tree], "Run"]
KEPT = [3, 7, 11, 14, 15]  # segments, of 16 with one step each


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_CHECKPOINTS", 4)


def weights_of(run: "Run") -> dict[str, torch.Tensor]:
    """Return the weights after each step, by layer, of the archive of a run."""
    source, found = open_archive(run.job.store, spec_of(run)), dict[str, list[torch.Tensor]]()
    for segment in source.segments():
        for block in source.blocks(segment):
            found.setdefault(block.layer, []).append(block.weights[1:])
    return {name: torch.cat(parts) for name, parts in found.items()}


def checkpoints(run: "Run") -> list[int]:
    """Return the segments after which a checkpoint is kept."""
    files = Path(run.config.store, spec_of(run).path).glob("files/checkpoint-*")
    return sorted(int(file.name.split("-")[1]) for file in files)


def test_a_thinned_training_has_the_updates_of_the_dense_archive(
    tiny_tree: Tree, new_run: NewRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runs = {}
    for kind in ("dense", "replay"):
        tree = changed(tiny_tree, checkpoint_every=1, record={"kind": kind})
        runs[kind] = new_run({**tree, "store": str(tmp_path / kind)})
    train(runs["dense"])
    die_at(monkeypatch, 3, 7)
    for _ in range(2):
        with pytest.raises(PartitionError, match="killed"):
            train(runs["replay"])
    train(runs["replay"])
    assert checkpoints(runs["replay"]) == KEPT
    assert checkpoints(runs["dense"]) == list(range(16))
    dense, replayed = weights_of(runs["dense"]), weights_of(runs["replay"])
    assert dense.keys() == replayed.keys()
    assert all(torch.equal(replayed[name], dense[name]) for name in dense)
    store, spec = runs["replay"].job.store, spec_of(runs["replay"])
    assert [list(lines) for lines in verify_stages(store, [spec.path])] == [[]]
    sizes = {kind: TRAINING.size(spec_of(run), PlanSurvey(run.job.store)).written for kind, run in runs.items()}
    state = len(open_finished(store, spec).read_file("weights.safetensors"))
    assert len(KEPT) * state < sizes["replay"] < 10 * state < sizes["dense"]  # with all, more than 16


def test_snapshots_between_kept_checkpoints(tiny_tree: Tree, new_run: NewRun, tmp_path: Path) -> None:
    found: dict[str, list[dict[str, torch.Tensor]]] = {}
    for kind in ("dense", "replay"):
        tree = changed(tiny_tree, checkpoint_every=1, record={"kind": kind})
        run = new_run({**tree, "store": str(tmp_path / kind)})
        train(run)
        specs = snapshot_specs(spec_of(run), (1, 4, 6, 11))
        complete(run.job, SNAPSHOTS, specs)
        found[kind] = [snapshot(run, spec, step) for spec, step in zip(specs, (1, 4, 6, 11), strict=True)]
    for one, other in zip(found["dense"], found["replay"], strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def snapshot(run: "Run", spec: StageSpec, step: int) -> dict[str, torch.Tensor]:
    """Return the weights of a snapshot."""
    return dict(load_file(Path(run.config.store, spec.path, "files", snapshot_file(step))))
