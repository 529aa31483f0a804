"""A run of question 3 on the command line: plan, status, report, what a change makes again, processes and threads."""

import copy
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
import yaml

from configs.schema import Config
from flows.plan import make_plan
from storage.stages import find_finished, open_finished
from storage.stores import open_store
from tasks.cluster.parallel import open_pool
from tasks.engine.life import Job
from tests.conftest import SilentObserver
from tests.flows.command import Tree, Write, layerlore
from tests.plans import complete_plan

if TYPE_CHECKING:
    from tests.conftest import Run

NewRun = Callable[[Tree], "Run"]
pytestmark = pytest.mark.usefixtures("wide")

# Stages of the probed config: 2 snapshots, 2 layers, 2 detectors.
STAGES = {
    **{"manifest": 2, "training": 1, "snapshots": 2, "responses": 4, "image-features": 1, "words": 2},
    **{"concept-side": 1, "clip-dissect": 4, "dissection-thresholds": 4, "network-dissection": 4, "neurons": 8},
    **{"plane": 1, "planted": 2, "exemplars": 1},
}


def changed(run: "Run", **settings: Any) -> Tree:  # Any: of the section
    """Return the config of a run with other settings of the question; None removes one."""
    tree = copy.deepcopy(run.tree)
    section = {**tree["concepts"], **settings}
    tree["concepts"] = {key: value for key, value in section.items() if value is not None}
    return tree


def missing(run: "Run", tree: Tree) -> dict[str, int]:
    """Return how many stages of a config the store of a run does not have, by kind."""
    specs = make_plan(Config.model_validate(tree)).stages
    return dict(Counter(spec.stage for spec in specs if find_finished(run.job.store, spec.path) is None))


def test_the_run_has_these_stages(probed_run: "Run") -> None:
    assert dict(Counter(spec.stage for spec in probed_run.plan.stages)) == STAGES
    assert missing(probed_run, probed_run.tree) == {}


def test_plan_status_and_report_of_a_finished_run(probed_run: "Run", write: Write, tmp_path: Path) -> None:
    run = probed_run.at(str(tmp_path / "store"))
    path, n = write(run.tree), sum(STAGES.values())
    assert layerlore("plan", path).stdout.splitlines()[-1] == f"{n} stages, 0 to make, at most 0 B to write"
    status = layerlore("status", run.config.store)
    assert status.exit_code == 0
    assert f"{n} of {n} stages complete" in status.stdout
    report = layerlore("report", path)
    assert report.exit_code == 0, report.output
    site = Path(run.config.store, "reports", "probed")
    assert report.stdout.strip().endswith(f"{site}/index.html")
    assert (site / "concepts.html").is_file()
    tables = {name: pd.read_parquet(site / "tables" / f"{name}.parquet") for name in ("concepts", "monitor")}
    expected = ["network", "seed", "snapshot", "layer", "neuron", "detector", "word", "category", "similarity"]
    assert [name for name in tables["concepts"] if name in expected] == expected
    assert "interpretable" in tables["concepts"]
    wanted = {"network", "seed", "snapshot", "step", "layer", "detector", "d_anchor", "mean_pairwise", "interpretable"}
    assert wanted | {"distinct"} <= set(tables["monitor"])
    assert len(tables["monitor"]) == 8
    assert len(tables["concepts"]) == 2 * 2 * (6 + 12)
    assert sorted(file.name for file in (site / "tables").glob("units-*.csv")) == [
        "units-small-seed-0-2.csv",
        "units-small-seed-0-8.csv",
    ]
    again = layerlore("run", path)
    assert again.stderr == f"all {n} stages are complete in {run.config.store}\n"


def test_a_plan_of_a_new_store_names_every_stage_and_writes_nothing(
    probed_tree: Tree, write: Write, tmp_path: Path
) -> None:
    result = layerlore("plan", write(probed_tree))
    assert result.exit_code == 0, result.output
    n = sum(STAGES.values())
    assert result.stdout.splitlines()[-1].startswith(f"{n} stages, {n} to make, at most ")
    for kind in STAGES:
        assert f" {kind} " in result.stdout, kind
    assert not (tmp_path / "store").exists()


def test_the_plan_bounds_what_stages_write(probed_run: "Run") -> None:
    from tasks.steps.common.survey import PlanSurvey
    from tasks.steps.questions import STEPS

    survey = PlanSurvey(probed_run.job.store)
    for spec in probed_run.plan.stages:
        arrays = open_finished(probed_run.job.store, spec).layout.n_bytes
        assert STEPS[spec.stage].size(spec, survey).written >= arrays, spec.title


def test_another_snapshot_costs_one_pass_and_one_product_for_each_layer(probed_run: "Run") -> None:
    tree = copy.deepcopy(probed_run.tree)
    tree["networks"]["small"]["train"]["snapshots"] = [0, 8, 16]
    expected = {"snapshots": 1, "responses": 2, "clip-dissect": 2, "dissection-thresholds": 2, "network-dissection": 2}
    assert missing(probed_run, tree) == {**expected, "neurons": 4, "plane": 1}


@pytest.mark.parametrize("layers", [["2", "5", "8"], ["5", "8", "2"]])
def test_another_layer_makes_only_its_own_stages(probed_run: "Run", layers: list[str]) -> None:
    tree = changed(probed_run, layers=layers)
    specs = make_plan(Config.model_validate(tree)).stages
    new = [spec for spec in specs if find_finished(probed_run.job.store, spec.path) is None]
    whole = {"plane": 1, "exemplars": 1}  # of all layers
    own = dict.fromkeys(("responses", "clip-dissect", "dissection-thresholds", "network-dissection"), 2)
    assert dict(Counter(spec.stage for spec in new)) == {**own, "neurons": 4, **whole}
    assert {spec.label.split()[3] for spec in new if spec.stage not in whole} == {"5"}


def test_another_word_list_makes_only_its_own_stages(probed_run: "Run", tmp_path: Path) -> None:
    (tmp_path / "few.txt").write_text("red\nblue\n")
    tree = changed(probed_run, words=["labels", str(tmp_path / "few.txt")])
    assert missing(probed_run, tree) == {"words": 1, "concept-side": 1, "clip-dissect": 4, "neurons": 4, "plane": 1}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"detectors": {"soft_wpmi": {"top_k": 10}}}, {"plane": 1}),
        ({"temperatures": [0.05, 1.0]}, {"neurons": 8, "plane": 1, "exemplars": 1}),
        ({"shown": 4}, {"exemplars": 1}),
        ({"shown": 0}, {}),
        (
            {"detectors": {"soft_wpmi": {"top_k": 10}, "cos": {}, "network-dissection": {"quantile": 0.05}}},
            {"clip-dissect": 4, "neurons": 4, "plane": 1, "planted": 1},
        ),
        (
            {"detectors": {"soft_wpmi": {"top_k": 10, "tau": 1.0}, "network-dissection": {"quantile": 0.05}}},
            {"neurons": 4, "plane": 1, "exemplars": 1},
        ),
    ],
)
def test_other_settings_make_only_what_depends_on_them(
    probed_run: "Run", settings: dict[str, Any], expected: dict[str, int]
) -> None:
    found = missing(probed_run, changed(probed_run, **settings))
    assert found == expected


@pytest.mark.slow
def test_threads_make_the_same_bytes(probed_tree: Tree, probed_run: "Run") -> None:
    config = Config.model_validate({**probed_tree, "cluster": {"kind": "threads", "workers": 2}})
    plan = make_plan(config)
    with open_pool(config.cluster) as pool:
        job = Job(open_store(config.store, create=True), pool, SilentObserver())
        complete_plan(plan, job)
    for spec in probed_run.plan.stages:
        here, there = (open_finished(store, spec) for store in (job.store, probed_run.job.store))
        assert here.note["arrays"] == there.note["arrays"], spec.title


@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_a_run_of_processes_makes_the_same_bytes(
    probed_tree: Tree, tmp_path: Path, probed_run: "Run", standing_server: dict[str, str]
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({**probed_tree, "cluster": {"kind": "local"}}, sort_keys=False))
    command = [sys.executable, "-c", "from flows.cli import main; main()", "run", str(path)]
    environment = {**os.environ, **standing_server, "COLUMNS": "200"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    store, n = probed_tree["store"], len(probed_run.plan.stages)
    assert done.stdout == f"report: {store}/reports/probed/index.html\n"
    assert done.stderr.splitlines()[0] == f"{n} of {n} stages to make, in {store}"
    for spec in probed_run.plan.stages:
        here, there = (open_finished(place, spec) for place in (open_store(store), probed_run.job.store))
        assert here.note["arrays"] == there.note["arrays"], spec.title
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert again.stderr == f"all {n} stages are complete in {store}\n"
