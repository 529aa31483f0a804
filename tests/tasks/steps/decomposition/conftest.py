"""A run with all that a retraining of its decomposed head or network reads."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.tasks.steps.decomposition.retrainings import NewRun, retrained

if TYPE_CHECKING:
    from tests.conftest import Run


@pytest.fixture
def run_of(decomposed_run: "Run", new_run: NewRun, tmp_path: Path) -> Callable[..., "Run"]:
    """A function from a scope and settings to a run with all that the retraining reads."""

    def make(scope: str, name: str = "copy", **settings: object) -> "Run":
        store = tmp_path / name
        if not store.exists():
            decomposed_run.at(str(store))
        return new_run({**retrained(decomposed_run.tree, scope, **settings), "store": str(store)})

    return make
