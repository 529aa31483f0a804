"""The flow of the live watch with a real Prefect server: stages as tasks, an artifact and an event of a fall."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from configs.load import load_config
from flows.plan import make_plan
from flows.progress import finished_paths
from storage.stores import open_store
from tests.flows.command import Tree, Write
from tests.flows.watches import folder_tree, save_checkpoint
from tests.shared import prefect_home

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
FLOW = """
import sys
from flows.watch import watch
print("page:", watch(sys.argv[1], [], 0))
"""
AGAIN = """
import json, sqlite3, sys, time
from configs.load import prefect_defaults
prefect_defaults()
from contextlib import closing
from tasks.engine.alerts import Alert, send_to_prefect
alert = Alert(**json.loads(sys.argv[2]))
send_to_prefect(alert)
send_to_prefect(alert)
found, until = [], time.monotonic() + 200
while not found and time.monotonic() < until:  # the server writes events every few seconds
    time.sleep(0.5)
    with closing(sqlite3.connect(sys.argv[1], timeout=60)) as database:
        found = database.execute("SELECT resource_id, payload FROM events WHERE event LIKE 'layerlore%'").fetchall()
print(json.dumps(found))
"""


def run(variables: dict[str, str], code: str, *arguments: str) -> str:
    """Run code in a process of its own and return its output."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def ask(variables: dict[str, str], path: str, body: object) -> Any:  # Any: JSON
    """Ask the server."""
    return httpx.post(f"{variables['PREFECT_API_URL']}{path}", json=body, timeout=60).raise_for_status().json()


def test_the_flow_makes_stages_as_tasks_and_an_artifact_of_a_fall(
    standing_server: dict[str, str], probed_tree: Tree, tmp_path: Path, write: Write
) -> None:
    tree = folder_tree(probed_tree, tmp_path / "checkpoints")
    tree["concepts"]["watch"]["falls"] = {"mean_pairwise": 0.9}
    for number in (1, 2):
        file = tmp_path / "checkpoints" / f"epoch_{number}.pt"
        save_checkpoint(file, number, identical=number == 2)
        os.utime(file, (1e9, 1e9))
    path = write(tree)
    assert run(standing_server, FLOW, path).strip().endswith("reports/probed/index.html")
    plan = make_plan(load_config(path))
    assert len(finished_paths(plan, open_store(plan.config.store))) == len(plan.stages)
    (flow_run,) = ask(standing_server, "/flow_runs/filter", {"flows": {"name": {"any_": ["watch"]}}})
    assert flow_run["state_type"] == "COMPLETED"
    (artifact,) = ask(standing_server, "/artifacts/filter", {"artifacts": {"key": {"any_": ["diversity-fell"]}}})
    assert artifact["flow_run_id"] == flow_run["id"]
    expected = (
        "diversity falls: small seed 0, epoch_2, layer 8, soft_wpmi: the mean distance between neurons falls from"
    )
    assert artifact["data"].startswith(expected)


def test_a_process_without_a_server_keeps_the_event_of_a_cause_once(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    home = prefect_home(tmp_path_factory, tmp_path / "home")
    alert = {"run": "twice", "key": "cause", "text": "diversity falls", "numbers": {"value": 1.0}}
    variables = {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    ((resource, payload),) = json.loads(run(variables, AGAIN, str(home / "prefect.db"), json.dumps(alert)))
    assert resource == "layerlore.run.twice"
    assert json.loads(payload) == {"value": 1.0, "text": "diversity falls"}
