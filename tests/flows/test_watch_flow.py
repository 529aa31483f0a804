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

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
FLOW = """
import sys
from flows.watch import watch
print("page:", watch(sys.argv[1], [], 0))
"""
AGAIN = """
import json, sys
from tasks.engine.alerts import Alert, send_to_prefect
alert = json.loads(sys.argv[1])
send_to_prefect(Alert(**alert))
send_to_prefect(Alert(**alert))
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


def events(variables: dict[str, str], run: str) -> list[Tree]:
    """Return the events of a run's falls of diversity."""
    chosen = {"event": {"name": ["layerlore.diversity.fell"]}, "resource": {"id": [f"layerlore.run.{run}"]}}
    found: list[Tree] = ask(variables, "/events/filter", {"filter": chosen})["events"]
    return found


def wait_for_events(variables: dict[str, str], run: str) -> list[Tree]:
    """Return the events once the server has stored one."""
    import time

    until = time.monotonic() + 60
    while not (found := events(variables, run)) and time.monotonic() < until:
        time.sleep(0.2)
    return found


def test_the_flow_raises_an_artifact_and_an_event(
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
    (event,) = wait_for_events(standing_server, "probed")
    assert event["payload"]["snapshot"] == "epoch_2"
    assert event["payload"]["measure"] == "mean_pairwise"


def test_a_server_keeps_the_event_of_a_cause_once(standing_server: dict[str, str]) -> None:
    alert = {"run": "twice", "key": "cause", "text": "diversity falls", "numbers": {"value": 1.0}}
    run(standing_server, AGAIN, json.dumps(alert))
    (event,) = wait_for_events(standing_server, "twice")
    assert event["payload"] == {"value": 1.0, "text": "diversity falls"}
