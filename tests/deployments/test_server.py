"""A standing Prefect server with basic auth, a process worker, and deployments that really run."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import yaml

from tests.deployments.conftest import DEPLOYMENTS
from tests.deployments.servers import PATIENCE, SHRUNK, PrefectServer, check_finished, prefect_server

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A server on SQLite with the deployments of prefect.yaml, sent twice."""
    with prefect_server(tmp_path_factory.mktemp("sqlite")) as started:
        started.deploy()
        started.deploy()
        yield started


def overrides(server: PrefectServer) -> str:
    """Return the overrides of a small run, as JSON."""
    return f"overrides={json.dumps([f'store={server.store}', *SHRUNK])}"


def test_a_call_without_the_password_is_refused(server: PrefectServer) -> None:
    for credentials in (None, ("tester", "guessed"), ("", "")):
        for method, path in (
            ("GET", "/admin/settings"),
            ("POST", "/flow_runs/filter"),
            ("POST", "/deployments/filter"),
        ):
            answer = httpx.request(method, f"{server.url}{path}", json={}, auth=credentials, timeout=60)
            assert answer.status_code == 401, (credentials, path)
            assert "digits" not in answer.text
    assert len(server.post("/deployments/filter", {})) == 6
    assert httpx.get(f"{server.url}/health", timeout=60).json() is True  # probes need no password


def test_deploying_twice_leaves_one_of_each(server: PrefectServer) -> None:
    found = {one["name"]: one for one in server.post("/deployments/filter", {})}
    assert sorted(found) == [
        *("concepts-digits-cluster", "decomposition-digits-cluster"),
        *("digits", "digits-cluster", "tracing-digits-cluster", "watch-digits"),
    ]
    for one in found.values():
        assert one["pull_steps"] in (None, [])
        assert str(Path.cwd()) not in str({**one, "job_variables": None, "parameters": None})
        assert len(one["schedules"]) == 1
        assert one["global_concurrency_limit"]["limit"] == 1
        assert one["concurrency_options"]["collision_strategy"] == "ENQUEUE"
        assert one["job_variables"]["working_dir"] == str(server.home)
    assert server.get("/work_pools/layerlore")["concurrency_limit"] == 2
    (automation,) = server.post("/automations/filter", {})
    assert (automation["name"], automation["trigger"]["within"]) == ("layerlore-crashed", 90.0)


def test_scheduled_runs_appear(server: PrefectServer) -> None:
    server.processes.wait_for(lambda: server.flow_runs("digits", state={"type": {"any_": ["SCHEDULED"]}}), "a run")
    first = server.flow_runs("digits", state={"type": {"any_": ["SCHEDULED"]}})[0]
    start = datetime.fromisoformat(first["expected_start_time"].replace("Z", "+00:00"))
    assert (start.hour, start.minute) == (2, 0)
    assert datetime.now(UTC) < start <= datetime.now(UTC) + timedelta(days=1)
    assert server.flow_runs("tracing-digits-cluster") == []  # its schedule is off


def test_a_run_without_heartbeats_is_crashed_and_an_ended_one_is_left_alone(
    server: PrefectServer, tmp_path: Path
) -> None:
    quick = yaml.safe_load((DEPLOYMENTS / "automation.yaml").read_text())
    flow = server.post("/flows/", {"name": "killed"})["id"]
    install(server, tmp_path, {**quick, "trigger": {**quick["trigger"], "within": 20}})
    try:
        runs = [server.post("/flow_runs/", {"flow_id": flow, "state": {"type": "RUNNING"}})["id"] for _ in range(2)]
        server.post("/events", [heartbeat(run) for run in runs])
        server.post(f"/flow_runs/{runs[1]}/set_state", {"state": {"type": "COMPLETED"}})
        server.wait_for_state(runs[0], "CRASHED", 240)
        assert "No heartbeat" in server.get(f"/flow_runs/{runs[0]}")["state"]["message"]
        assert server.state(runs[1]) == "COMPLETED"
    finally:
        install(server, tmp_path, yaml.safe_load((DEPLOYMENTS / "automation.yaml").read_text()))
    assert len(server.post("/automations/filter", {})) == 1


def install(server: PrefectServer, folder: Path, tree: dict[str, Any]) -> None:  # Any: YAML
    """Install an automation by the code that installs ours."""
    file = folder / "automation.yaml"
    file.write_text(yaml.safe_dump(tree))
    server.processes.call(
        "python",
        "-c",
        "import sys; from pathlib import Path; import prepare; from prefect.client.orchestration import get_client\n"
        "with get_client(sync_client=True) as client: prepare.prepare_automation(client, Path(sys.argv[1]))",
        file,
        PYTHONPATH=str(DEPLOYMENTS),
    )


def heartbeat(flow_run: str) -> dict[str, object]:
    """Return the event that a living run sends."""
    return {
        "id": str(uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": "prefect.flow-run.heartbeat",
        "resource": {"prefect.resource.id": f"prefect.flow-run.{flow_run}"},
    }


def test_a_deployed_run_is_done_by_the_worker(server: PrefectServer) -> None:
    server.start_worker()
    server.processes.call("prefect", "deployment", "run", "run/digits", "--param", overrides(server))
    (asked,) = [run for run in server.flow_runs("digits") if not run["auto_scheduled"]]
    server.wait_for_state(asked["id"], "COMPLETED", PATIENCE)
    check_finished(server)
    check_shown(server, asked["id"])


def check_shown(server: PrefectServer, identity: str) -> None:
    """Check what an operator sees of a run in Prefect: its name and tags, those of its questions, its log, its report.

    The log of the whole run has the lines of its tasks as well.
    """
    whole = server.get(f"/flow_runs/{identity}")
    assert whole["name"] == "digits"
    assert {"run:digits", f"store:{server.store}", "network:small"} <= {*whole["tags"]}
    asked = {"flow_runs": {"name": {"any_": ["digits: interpretation"]}}}
    (question,) = server.post("/flow_runs/filter", asked)
    assert {"run:digits", "question:interpretation"} <= {*question["tags"]}
    lines = [one["message"] for one in server.post("/logs/filter", {"logs": {"flow_run_id": {"any_": [identity]}}})]
    assert any(line.startswith("training small seed 0 [") and ": done in " in line for line in lines), lines
    (report,) = server.post("/artifacts/filter", {"artifacts": {"key": {"any_": ["report"]}}})
    assert f"](file://{server.store}/reports/digits/index.html)" in report["data"]
