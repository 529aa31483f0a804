"""A real run of question 2 in processes of its own: what Prefect and Dask make is what one process makes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from storage.stages import open_finished
from storage.stores import open_store

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML


@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_a_run_of_processes_makes_the_same_bytes(
    decomposed_tree: Tree, tmp_path: Path, decomposed_run: "Run", standing_server: dict[str, str]
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({**decomposed_tree, "cluster": {"kind": "local"}}))
    command = [sys.executable, "-c", "from flows.cli import main; main()", "run", str(path)]
    environment = {**os.environ, **standing_server, "COLUMNS": "200"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    store, stages = decomposed_tree["store"], decomposed_run.plan.stages
    assert done.stdout == f"report: {store}/reports/decomposed/index.html\n"
    assert done.stderr.splitlines()[0] == f"{len(stages)} of {len(stages)} stages to make, in {store}"
    for spec in stages:
        here, there = (open_finished(place, spec) for place in (open_store(store), decomposed_run.job.store))
        assert here.note["arrays"] == there.note["arrays"], spec.title
        assert here.note["files"] == there.note["files"], spec.title
    assert Path(store, "reports", "decomposed", "decomposition.html").is_file()
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert again.stderr == f"all {len(stages)} stages are complete in {store}\n"
