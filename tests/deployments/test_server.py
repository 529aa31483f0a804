"""A standing Prefect server with basic auth, a process worker, and deployments that really run."""

import json
import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest
import yaml
from distributed import Client, Security

from configs.load import load_config
from flows.plan import finished_paths, make_plan
from storage.stores import open_store
from storage.verify import stage_paths, verify_stage
from tests.deployments.conftest import DEPLOYMENTS, Processes, TlsCluster, start_cluster
from tests.deployments.servers import PrefectServer, postgres, prefect_server

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
PATIENCE = 400.0  # seconds for a run of a few: the machine may be loaded
SHRUNK = [
    "data.digits.per_class={train: 12, val: 4}",
    "networks.small.arguments={width: 4}",
    "networks.small.train.epochs=1",
    "interpretation.selectors={random: {repeats: 1}}",
    "interpretation.budgets=[1.0]",
    "interpretation.interpreters={ice: {components: 3}}",
]


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


def check_finished(server: PrefectServer) -> None:
    """Compare what a small run of the preset digits should have left with what there is."""
    config = load_config("digits", [f"store={server.store}", *SHRUNK])
    plan, store = make_plan(config), open_store(config.store)
    assert finished_paths(plan, store) == {spec.path for spec in plan.stages}
    assert [line for path in stage_paths(store) for line in verify_stage(store, path)] == []
    assert (server.store / "reports" / "digits" / "index.html").is_file()
    assert list(server.home.iterdir()) in ([], [server.home / "tls"])  # nothing went where the run started


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
    assert len(server.post("/deployments/filter", {})) == 4
    assert httpx.get(f"{server.url}/health", timeout=60).json() is True  # probes need no password


def test_deploying_twice_leaves_one_of_each(server: PrefectServer) -> None:
    found = {one["name"]: one for one in server.post("/deployments/filter", {})}
    assert sorted(found) == ["decomposition-digits-cluster", "digits", "digits-cluster", "tracing-digits-cluster"]
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
    install(server, tmp_path, {**quick, "trigger": {**quick["trigger"], "within": 10}})
    try:
        runs = [server.post("/flow_runs/", {"flow_id": flow, "state": {"type": "RUNNING"}})["id"] for _ in range(2)]
        server.post("/events", [heartbeat(run) for run in runs])
        server.post(f"/flow_runs/{runs[1]}/set_state", {"state": {"type": "COMPLETED"}})
        server.wait_for_state(runs[0], "CRASHED", 120)
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


@pytest.mark.long  # heartbeats stop for 90 s before a run is Crashed
def test_on_postgres_a_killed_run_is_crashed_and_the_next_one_goes_on(tmp_path: Path) -> None:
    with postgres() as database, prefect_server(tmp_path, database) as server:
        cluster = start_cluster(server.processes, server.home / "tls", ("workers.sh", 2, "2GB"))
        server.deploy("--name", "digits-cluster", LAYERLORE_SCHEDULER=cluster.address)
        pids = worker_pids(cluster)
        worker = server.start_worker()
        run_every_minute(server, "digits-cluster")
        server.processes.wait_for(lambda: len(complete_stages(server.store)) >= 2, "two stages", PATIENCE)
        kill(server.processes, worker)
        gone = datetime.now(UTC)
        before = complete_stages(server.store)
        (killed,) = server.flow_runs("digits-cluster", state={"type": {"any_": ["RUNNING"]}})
        assert killed["auto_scheduled"] is True
        late = datetime.fromisoformat(killed["start_time"]) - datetime.fromisoformat(killed["expected_start_time"])
        assert timedelta(0) <= late < timedelta(seconds=60)
        assert unfinished(server)
        server.start_worker()
        server.wait_for_state(killed["id"], "CRASHED", 240)
        crashed = server.get(f"/flow_runs/{killed['id']}")["state"]
        assert "No heartbeat" in crashed["message"]
        waited = datetime.fromisoformat(crashed["timestamp"]) - gone
        assert timedelta(seconds=55) < waited < timedelta(seconds=150)  # the last heartbeat was up to 30 s before
        server.processes.wait_for(lambda: completed(server, "digits-cluster"), "the next run", PATIENCE)
        check_finished(server)
        assert before.items() <= complete_stages(server.store).items()  # what was finished is as it was
        assert {marker["numbers"]["pid"] for marker in markers(server.store)} <= pids  # Dask's workers did it all


def run_every_minute(server: PrefectServer, name: str) -> None:
    """Give a deployment the small run as its parameters, and a schedule."""
    (deployment,) = server.post("/deployments/filter", {"deployments": {"name": {"any_": [name]}}})
    parameters = {**deployment["parameters"], "overrides": [*deployment["parameters"]["overrides"], *SHRUNK]}
    schedule = {"active": True, "schedule": {"cron": "* * * * *", "timezone": "UTC"}, "parameters": parameters}
    server.post(f"/deployments/{deployment['id']}/schedules", [schedule])


def worker_pids(cluster: TlsCluster) -> set[int]:
    """Return the processes of a cluster's two workers."""
    with Client(cluster.address, security=Security(**cluster.arguments()), set_as_default=False) as client:
        client.wait_for_workers(2, timeout=120)
        return set(client.run(os.getpid).values())


def kill(processes: Processes, worker: "subprocess.Popen[bytes]") -> None:
    """Kill a Prefect worker and the runs below it, so that nobody is left to tell."""
    below = psutil.Process(worker.pid).children(recursive=True)
    assert below
    for process in (psutil.Process(worker.pid), *below):
        process.kill()
    worker.wait()
    processes.started.remove(worker)


def completed(server: PrefectServer, name: str) -> bool:
    """Say whether a run of a deployment has completed; one that failed is an error."""
    found = server.flow_runs(name, state={"type": {"any_": ["COMPLETED", "FAILED"]}})
    assert all(run["state_type"] == "COMPLETED" for run in found), found[0]["state"]["message"]
    return bool(found)


def markers(store: Path) -> list[dict[str, Any]]:  # Any: JSON
    """Return the notes of all finished partitions."""
    return [json.loads(file.read_text()) for file in store.glob("*/*/markers/0*.json")]


def complete_stages(store: Path) -> dict[str, tuple[int, bytes]]:
    """Return when each complete stage was sealed, and what its note says."""
    notes = store.glob("*/*/markers/complete.json")
    return {str(note): (note.stat().st_mtime_ns, note.read_bytes()) for note in notes}


def unfinished(server: PrefectServer) -> bool:
    """Say whether the small run has stages left to make."""
    config = load_config("digits", [f"store={server.store}", *SHRUNK])
    plan = make_plan(config)
    return finished_paths(plan, open_store(config.store)) < {spec.path for spec in plan.stages}
