"""Configs that ask for one retraining of a decomposed head or network, and its making."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.specs import StageSpec
from tasks.engine.life import complete
from tasks.steps.decomposition.decomposed_training import DECOMPOSED_TRAININGS
from tests.tasks.steps.decomposition.loops import answer

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
NewRun = Callable[[Tree], "Run"]
K2 = 4
SETTINGS: dict[str, Tree] = {
    "head": {"epochs": 3, "optimizer": {"kind": "adam", "lr": 0.01}, "batches": {"size": 16}, "checkpoint_every": 5},
    "network": {
        "epochs": 3,
        "optimizer": {"kind": "sgd", "lr": 0.01, "momentum": 0.9},
        "schedule": {"kind": "step", "every": 2},
        "batches": {"kind": "single-class", "size": 7, "ghosts": 10},
        "augment": {"pad": 1},
        "checkpoint_every": 13,
    },
}


def retrained(tree: Tree, scope: str, **settings: object) -> Tree:
    """Return a config that asks for one retraining."""
    other = copy.deepcopy(tree)
    other["decomposition"]["retraining"] = {scope: {**SETTINGS[scope], **settings}}
    return other


def spec_of(run: "Run") -> StageSpec:
    """Return the run's only retraining."""
    return next(iter(answer(run).retrained.values()))


def train(run: "Run") -> Path:
    """Make the retraining of a run and return the folder of its files."""
    complete(run.job, DECOMPOSED_TRAININGS, [spec_of(run)])
    return Path(run.config.store, spec_of(run).path, "files")
