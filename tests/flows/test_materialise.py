"""`layerlore materialise`: the archive of a run, or of a loop of one's own, becomes another kind."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from typer.testing import CliRunner, Result

from flows import cli, exits
from storage.updates.archives import find_conversions
from tasks.recording import UpdateSource, open_updates
from tasks.steps.common import trainer
from tasks.steps.common.replays import open_archive
from tests.flows.command import layerlore
from tests.flows.test_standing import document
from tests.tasks.recording.conftest import Training
from tests.tasks.steps.common.trainings import changed, spec_of, train

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
NewRun = Callable[[Tree], "Run"]

pytestmark = pytest.mark.usefixtures("wide")


def materialise(store: object, *arguments: str) -> Result:
    """Convert the archives of a store in this process."""
    return CliRunner().invoke(cli.app, ["materialise", str(store), *arguments])


def weights(source: UpdateSource) -> list[torch.Tensor]:
    """Return the weights of all layers after each step, segment by segment."""
    return [block.weights for segment in source.segments() for block in source.blocks(segment)]


def line(result: Result, code: int) -> str:
    """Return the one line of an error, after checking the code."""
    assert result.exit_code == code, (result.exit_code, result.output)
    (found,) = result.stderr.splitlines()
    return found.removeprefix("error: ")


def test_the_archive_of_a_run(tiny_tree: Tree, new_run: NewRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_run(changed(tiny_tree, record={"kind": "replay"})).finish()
    store, spec = run.job.store, spec_of(run)
    replayed = weights(open_archive(store, spec))
    result = materialise(run.config.store, "--kind", "dense")
    assert result.exit_code == 0, result.output
    (made,) = find_conversions(store)[spec.path]
    assert result.stdout.startswith(f"{made.path}: ")
    assert result.stdout.endswith("kB of kind dense\n")
    assert open_archive(store, spec).kind == "replay"  # as long as it works
    there = trainer.environment(torch.device("cpu"))
    monkeypatch.setattr(trainer, "environment", lambda device: {**there, "torch": "99.0"})
    converted = open_archive(store, spec)
    assert converted.kind == "dense"
    assert len(replayed) > 1
    assert all(torch.equal(a, b) for a, b in zip(replayed, weights(converted), strict=True))
    assert "expected no finished conversion of small seed 0 dense, found one" in line(
        materialise(run.config.store, "--kind", "dense"), exits.FAILED
    )


def test_archives_that_cannot_be_converted_stay_as_they_are(tiny_tree: Tree, new_run: NewRun) -> None:
    tree = changed(tiny_tree, record={"kind": "replay"})
    tree["networks"]["rounded"] = changed(tiny_tree, record={"kind": "hybrid"})["networks"]["small"]
    tree["tracing"] = {"networks": list(tree["networks"]), "queries": {"count": 2}}
    del tree["interpretation"]
    run = new_run(tree).finish()
    store, trainings = run.job.store, {str(spec.place["network"]): spec for spec in run.plan.shared.trainings.values()}
    result = materialise(run.config.store, "--kind", "dense")
    assert result.exit_code == 0, result.output
    (made,) = find_conversions(store)[trainings["small"].path]
    assert [*find_conversions(store)] == [trainings["small"].path]
    why = (
        "kind: expected an archive of kind replay or dense, which have every bit, found hybrid; record the training "
        "again to have another kind"
    )
    assert f"rounded seed 0 stays as it is: {why}" in result.stderr.splitlines()
    size = sum(file.stat().st_size for file in Path(run.config.store, made.path, "files").rglob("*") if file.is_file())
    (entry,) = document("status", run.config.store)["conversions"]
    assert entry == {"path": made.path, "archive": trainings["small"].path, "kind": "dense", "size": size}
    last = layerlore("status", run.config.store).stdout.splitlines()[-1]
    assert last.startswith(f"{made.path}: conversion of {trainings['small'].path}, kind dense, ")
    shutil.rmtree(Path(run.config.store, trainings["small"].path))
    assert line(materialise(run.config.store, "--kind", "dense"), exits.FAILED) == f"rounded seed 0: {why}"


def test_refusals(tiny_tree: Tree, new_run: NewRun, tmp_path: Path) -> None:
    run = new_run(changed(tiny_tree, record={"kind": "replay"}))
    train(run)
    assert line(materialise(run.config.store, "--kind", "replay"), 2) == (
        "--kind: expected one of dense, hybrid, found 'replay'"
    )
    assert "--tolerance: expected a number from 0 to 0.01, found 0.5" in line(
        materialise(run.config.store, "--kind", "hybrid", "--tolerance", "0.5"), 2
    )
    assert "expected an archive of a recorder, found none" in line(
        materialise(run.config.store, "--kind", "dense"), exits.FAILED
    )
    plain = new_run({**tiny_tree, "store": str(tmp_path / "plain")}).finish()
    assert "expected a finished training with `record`, found none" in line(
        materialise(plain.config.store, "--kind", "dense"), exits.FAILED
    )
    assert "--program: expected none for a run" in line(
        materialise(plain.config.store, "--kind", "dense", "--program", "a:b"), 2
    )


def test_the_archive_of_a_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training()
    training.recorded(tmp_path / "store", 12, kind="replay")
    (tmp_path / "loops_program.py").write_text(
        "from tests.tasks.recording.conftest import Training\n\n\ndef begin():\n    return Training().program()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "--program: import path 'loops_program:other'" in line(
        materialise(tmp_path / "store", "--kind", "dense", "--program", "loops_program:other"), 2
    )
    assert "--program: expected the program of a replay archive, found none" in line(
        materialise(tmp_path / "store", "--kind", "dense"), exits.BAD_CONFIG
    )
    result = materialise(tmp_path / "store", "--kind", "dense", "--program", "loops_program:begin")
    assert result.exit_code == 0, result.output
    sys.modules.pop("loops_program")
    source = open_updates(str(tmp_path / "store"))
    states = [state["6.weight"] for state in training.states]
    found = [w for s in source.segments() for b in source.blocks(s, ["6"]) for w in b.weights[1:]]
    assert all(torch.equal(a, b) for a, b in zip(states[1:], found, strict=True))
