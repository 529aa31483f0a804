"""A real run of question 4 in processes of its own: what Prefect and Dask make is what one process makes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
import yaml

from storage.stages import open_finished
from storage.stores import open_store
from tests.plans import traces

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML


@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_a_run_of_processes_makes_the_same_bytes(
    traced_tree: Tree, tmp_path: Path, traced_run: "Run", standing_server: dict[str, str]
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({**traced_tree, "cluster": {"kind": "local"}}))
    command = [sys.executable, "-c", "from flows.cli import main; main()", "run", str(path)]
    environment = {**os.environ, **standing_server, "COLUMNS": "200"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    store = traced_tree["store"]
    assert done.stdout == f"report: {store}/reports/traced/index.html\n"
    lines = done.stderr.splitlines()
    n = len(traced_run.plan.stages)
    assert lines[0] == f"{n} of {n} stages to make, in {store}"
    training = traces(traced_run.plan)[0].training
    curves = pd.read_parquet(Path(traced_run.config.store, training.path, "files", "epochs.parquet"))
    for epoch, loss, accuracy in curves[["epoch", "loss", "accuracy"]].to_numpy().tolist():
        messages = f"epoch {epoch:.0f} of 2, loss {loss:.4f}, accuracy {accuracy:.4f}, lr "
        assert any(line.startswith(f"{training.title}: {messages}") for line in lines), lines
    for spec in traced_run.plan.stages:
        here, there = (open_finished(place, spec) for place in (open_store(store), traced_run.job.store))
        assert here.note["arrays"] == there.note["arrays"], spec.title
    assert Path(store, "reports", "traced", "index.html").is_file()
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert again.stderr == f"all {n} stages are complete in {store}\n"
