"""What trainings report: a line per epoch while they run, rows at the end."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from tasks.engine.curves import CurveReader
from tasks.engine.life import complete
from tasks.steps.common.manifest import MANIFEST
from tasks.steps.common.training import TRAINING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML


def test_each_epoch_is_told_once_with_what_the_table_says(tiny_tree: Tree, new_run: "Callable[[Tree], Run]") -> None:
    tiny_tree["networks"]["small"]["train"]["schedule"] = {"kind": "step", "every": 1}
    run = new_run(tiny_tree)
    (spec,) = run.plan.shared.trainings.values()
    reader = CurveReader(run.job.store, TRAINING.curves, [spec])
    reader.begin()
    assert list(reader.lines()) == []
    assert list(reader.tables()) == []
    complete(run.job, MANIFEST, list(run.plan.shared.manifests.values()))
    complete(run.job, TRAINING, [spec])
    table = pd.read_parquet(Path(run.config.store, spec.path, "files/epochs.parquet"))
    lines = [
        f"{spec.title}: epoch {row.epoch} of 2, loss {row.loss:.4f}, accuracy {row.accuracy:.4f}, lr {row.lr:.3g}"
        for row in table.itertuples()
    ]
    assert list(reader.lines()) == lines
    assert lines[1].endswith("lr 0.005")
    assert list(reader.lines()) == []
    ((found, rows),) = reader.tables()
    assert found is spec
    pd.testing.assert_frame_equal(pd.DataFrame(rows), table)


def test_what_was_there_before_is_not_told_again(finished_run: "Run") -> None:
    reader = CurveReader(finished_run.job.store, TRAINING.curves, list(finished_run.plan.shared.trainings.values()))
    reader.begin()
    assert list(reader.lines()) == []


def test_long_epochs_are_told_of_now_and_then(finished_run: "Run", monkeypatch: pytest.MonkeyPatch) -> None:
    (spec,) = finished_run.plan.shared.trainings.values()
    clock = [100.0]
    monkeypatch.setattr("tasks.engine.curves.time.monotonic", lambda: clock[0])
    reader = CurveReader(finished_run.job.store, TRAINING.curves, [spec])
    reader.begin()
    reader._next[spec.path] = 0
    clock[0] += 11
    first, *rest = reader.lines()
    assert first.startswith(f"{spec.title}: 5 steps, loss ")
    assert [line.split(": ")[1].split(",")[0] for line in rest] == ["epoch 1 of 2", "epoch 2 of 2"]


def test_stages_that_do_not_train_have_no_curves(finished_run: "Run") -> None:
    reader = CurveReader(finished_run.job.store, MANIFEST.curves, list(finished_run.plan.shared.manifests.values()))
    reader.begin()
    assert list(reader.lines()) == []
    assert list(reader.tables()) == []
