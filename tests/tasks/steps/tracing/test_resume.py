"""Question 4 killed in the middle, extended, and repeated: same bytes, and only what is new is made."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from storage.documents import digest
from storage.specs import StageSpec
from storage.stages import find_finished, open_finished
from tasks.cluster.parallel import PartitionError
from tasks.steps.tracing import influence, mislabel, projection, retraining
from tests.plans import traces

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
NewRun = Callable[[Tree], "Run"]


def contents(run: "Run", spec: StageSpec) -> dict[str, Any]:  # Any: digests
    """Return the digests of a stage's arrays and files."""
    note = open_finished(run.job.store, spec).note
    return {"arrays": note["arrays"], "files": {k: v for k, v in note["files"].items() if "segment-" not in k}}


def dies_at(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, call: int) -> None:  # Any: a module
    """Let the run die in the `call`-th call of a function, after its work."""
    original, calls = getattr(module, name), 0

    def counted(*arguments: Any, **options: Any) -> Any:  # Any: passed on
        nonlocal calls
        calls += 1
        found = original(*arguments, **options)
        if calls == call:
            raise RuntimeError("killed")
        return found

    monkeypatch.setattr(module, name, counted)


@pytest.mark.parametrize(
    ("module", "name", "call"),
    [
        (projection, "_project", 3),
        (influence, "ranked", 4),
        (mislabel, "_self_shares", 5),
        (retraining, "query_logits", 4),
    ],
)
def test_a_killed_run_goes_on_to_the_same_bytes(
    traced_run: "Run", tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, call: int
) -> None:
    run = traced_run.at(str(tmp_path / "copy"))
    trace = traces(run.plan)[0]
    asked = {projection: trace.contributions, influence: trace.influence, mislabel: trace.mislabel}
    spec = asked.get(module, trace.retraining)
    assert spec is not None
    folder, made = Path(run.config.store, spec.path), open_finished(run.job.store, spec).layout.partitions
    for record in (folder / "markers").iterdir():
        record.unlink()
    with monkeypatch.context() as patch:
        dies_at(patch, module, name, call)
        with pytest.raises(PartitionError, match="killed"):
            run.finish()
    assert find_finished(run.job.store, spec.path) is None
    assert len(list((folder / "markers").glob("0*.json"))) < made
    run.finish()
    assert contents(run, spec) == contents(traced_run, spec)


def test_a_lost_marker_costs_one_partition(traced_run: "Run", tmp_path: Path) -> None:
    run = traced_run.at(str(tmp_path / "copy"))
    trace = traces(run.plan)[0]
    kept = {}
    for spec in (trace.contributions, trace.influence):
        records = Path(run.config.store, spec.path, "markers")
        (records / "complete.json").unlink()
        (records / "000001.json").unlink()
        kept[spec] = (records / "000000.json").read_bytes()
    run.finish()
    for spec, first in kept.items():
        assert contents(run, spec) == contents(traced_run, spec)
        assert Path(run.config.store, spec.path, "markers", "000000.json").read_bytes() == first


def missing(run: "Run", other: "Run") -> list[str]:
    """Return the kinds of a run's stages that the store of another does not hold, in order."""
    return [spec.stage for spec in run.plan.stages if find_finished(other.job.store, spec.path) is None]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"k": 3}, ["influence"]),
        ({"scores": ["gamma"]}, ["influence"]),
        ({"ridges": {"classes": 10}}, ["influence"]),
        ({"window": [0, 20]}, ["influence", "randomisation", "datamodelling"]),
        ({"anchor": "displacement"}, ["contributions", "influence", "mislabel", "contributions"]),
        ({"evaluation": {"randomisation": True}}, []),
        ({"evaluation": {"lds": {"subsets": 2}}}, ["retraining", "datamodelling", "comparison"]),
    ],
)
def test_a_change_makes_only_what_depends_on_it(
    traced_run: "Run", new_run: NewRun, changes: Tree, expected: list[str]
) -> None:
    tree = copy.deepcopy(traced_run.tree)
    tree["tracing"] |= changes
    if "anchor" in changes:
        expected = [*expected, "randomisation", "datamodelling"]
    assert missing(new_run(tree), traced_run) == expected


def test_what_equals_a_default_is_no_part_of_a_key(mlp: Tree, new_run: NewRun) -> None:
    tree = copy.deepcopy(mlp)
    tree["tracing"] = {"networks": ["net"], "queries": {"count": 3}, "evaluation": {"lds": {}}}
    full = copy.deepcopy(tree)
    full["tracing"] |= {"layers": "all", "anchor": "final", "bias": False, "k": 10, "scores": ["gamma", "logit"]}
    full["tracing"] |= {"window": None, "ridges": {"bandwidth": 0.1, "kind": "absolute", "classes": 10}}
    full["tracing"]["queries"] |= {"data": "digits", "split": "val"}
    one, other = (new_run({**t, "store": mlp["store"]}).plan.stages for t in (tree, full))
    assert [spec.path for spec in one] == [spec.path for spec in other]
    traced = {spec.stage: spec.parameters for spec in one}
    assert (traced["contributions"], traced["influence"], traced["datamodelling"]) == ({}, {}, {})


def test_more_queries_keep_the_trainings(traced_run: "Run", new_run: NewRun) -> None:
    tree = copy.deepcopy(traced_run.tree)
    tree["tracing"]["queries"]["count"] = 5
    found = missing(new_run(tree), traced_run)
    assert "training" not in found
    assert "manifest" not in found
    assert "mislabel" not in found  # looks at training examples alone
    assert found.count("queries") == found.count("contributions") == 2  # those of permuted labels too
    assert found.count("influence") == 1


@pytest.mark.parametrize("which", ["traced_run", "gapped_run"])
def test_recording_changes_no_bit_of_the_training(
    request: pytest.FixtureRequest, tmp_path: Path, new_run: NewRun, which: str
) -> None:
    recorded: Run = request.getfixturevalue(which)
    tree = {**copy.deepcopy(recorded.tree), "store": str(tmp_path / "plain")}
    del tree["tracing"]
    (name,) = tree["networks"]
    del tree["networks"][name]["train"]["record"]
    run = new_run(tree).finish()
    (mine,), theirs = run.plan.shared.trainings.values(), traces(recorded.plan)[0].training
    assert mine.key != theirs.key
    files = [Path(r.config.store, s.path, "files") for r, s in ((run, mine), (recorded, theirs))]
    names = sorted(path.name for path in files[0].iterdir())
    assert any(name.startswith("checkpoint-") for name in names)
    assert "weights.safetensors" in names
    for name in names:
        assert digest((files[0] / name).read_bytes()) == digest((files[1] / name).read_bytes()), name
    assert "archive_bytes" not in open_finished(run.job.store, mine).summary
    assert open_finished(recorded.job.store, theirs).summary["archive_bytes"] > 0
