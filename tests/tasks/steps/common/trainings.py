"""Trainings as stages: how the tests make them, break them off and compare their files."""

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from storage.documents import digest
from storage.specs import StageSpec
from tasks.engine.life import complete
from tasks.steps.common.manifest import MANIFEST
from tasks.steps.common.training import TRAINING
from tasks.training.loop import Trainer

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML


def changed(tree: Tree, **settings: object) -> Tree:
    """Return a config with other settings of its training."""
    other = copy.deepcopy(tree)
    other["networks"]["small"]["train"] |= settings
    return other


def spec_of(run: "Run") -> StageSpec:
    """Return the run's only training."""
    return next(iter(run.plan.shared.trainings.values()))


def train(run: "Run") -> Path:
    """Make the training of a run and return its folder."""
    complete(run.job, MANIFEST, list(run.plan.shared.manifests.values()))
    complete(run.job, TRAINING, [spec_of(run)])
    return Path(run.config.store, spec_of(run).path)


def file_digests(folder: Path) -> dict[str, str]:
    """Return the digest of every file of a training stage."""
    return {file.name: digest(file.read_bytes()) for file in (folder / "files").iterdir() if file.is_file()}


def die_at(monkeypatch: pytest.MonkeyPatch, *fatal: int) -> None:
    """Let the run die in these calls of the training loop, after its work and before anything is written."""
    original, calls = Trainer.run, 0

    def counted(*arguments: Any, **options: Any) -> list[float]:  # Any: passed on
        nonlocal calls
        calls += 1
        losses = original(*arguments, **options)
        if calls in fatal:
            raise RuntimeError("killed")
        return losses

    monkeypatch.setattr(Trainer, "run", counted)
