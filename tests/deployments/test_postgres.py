"""Prefect on PostgreSQL, a Dask cluster with TLS, a store on S3: a scheduled run that is killed and goes on."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import Client, Security

from flows.progress import finished_paths
from storage.stores import Store, open_store
from tests.deployments.conftest import Processes, TlsCluster, start_cluster
from tests.deployments.servers import (
    PATIENCE,
    SHRUNK,
    PrefectServer,
    check_finished,
    postgres,
    prefect_server,
    small_plan,
)
from tests.s3.conftest import SECRET, opened, swift_server

__all__ = ["swift_server"]  # a fixture

pytestmark = [  # heartbeats stop for 90 s before a run is Crashed
    *(pytest.mark.cluster, pytest.mark.s3, pytest.mark.long),
    *(pytest.mark.timeout(2400), pytest.mark.filterwarnings("ignore")),
]


@pytest.fixture(params=["swift", "local"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PrefectServer]:
    """A server on PostgreSQL whose programs know a store, on S3 or on a local disk."""
    with ExitStack() as stack:
        store, environment = None, dict[str, str]()
        if request.param == "swift":
            swift = request.getfixturevalue("swift_server")
            stack.enter_context(opened(swift))
            store, environment = f"s3://{swift.make_bucket()}/lore", swift.environment
        started = stack.enter_context(prefect_server(tmp_path, stack.enter_context(postgres()), store))
        started.processes.environment.update(environment)
        yield started


def test_a_scheduled_run_that_is_killed_is_crashed_and_the_next_one_goes_on(
    server: PrefectServer, tmp_path: Path
) -> None:
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
    assert timedelta(seconds=-1) < late < timedelta(seconds=180)
    assert unfinished(server)
    server.start_worker()
    server.wait_for_state(killed["id"], "CRASHED", PATIENCE)
    crashed = server.get(f"/flow_runs/{killed['id']}")["state"]
    assert "No heartbeat" in crashed["message"]
    waited = datetime.fromisoformat(crashed["timestamp"]) - gone
    assert timedelta(seconds=50) < waited < timedelta(seconds=210)  # the last heartbeat was over 30 s before at most
    server.processes.wait_for(lambda: completed(server, "digits-cluster"), "the next run", PATIENCE)
    check_finished(server)
    assert before.items() <= complete_stages(server.store).items()  # what was finished is as it was
    assert {record["numbers"]["pid"] for record in records(server.store)} <= pids  # Dask's workers did it all
    check_secrecy(server, tmp_path)


def check_secrecy(server: PrefectServer, folder: Path) -> None:
    """Look for the secret of S3 in what Prefect received, and in every file that the programs wrote."""
    messages = [
        server.post(f"/{kind}/filter", {}) for kind in ("logs", "flow_runs", "task_runs", "artifacts", "deployments")
    ]
    assert all(messages)
    assert SECRET not in json.dumps(messages)
    assert not [file for file in folder.rglob("*") if file.is_file() and SECRET.encode() in file.read_bytes()]


def run_every_minute(server: PrefectServer, name: str) -> None:
    """Give a deployment the small run as its parameters, and a schedule."""
    (deployment,) = server.post("/deployments/filter", {"deployments": {"name": {"any_": [name]}}})
    parameters = {**deployment["parameters"], "overrides": [*deployment["parameters"]["overrides"], *SHRUNK]}
    schedule = {"active": True, "schedule": {"cron": "* * * * *", "timezone": "UTC"}, "parameters": parameters}
    server.post(f"/deployments/{deployment['id']}/schedules", [schedule])


def worker_pids(cluster: TlsCluster) -> set[int]:
    """Return the processes of a cluster's two workers."""
    with Client(cluster.address, security=Security(**cluster.arguments()), set_as_default=False) as client:
        client.wait_for_workers(2, timeout=240)
        return set(client.run(os.getpid).values())


def kill(processes: Processes, worker: "subprocess.Popen[bytes]") -> None:
    """Kill a Prefect worker and the runs below it, so that no process is left to report it."""
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


def records(store: str) -> list[dict[str, Any]]:  # Any: JSON
    """Return the notes of all finished partitions."""
    held = Store(store)
    return [json.loads(held.read(name)) for name in held.files("") if "/markers/0" in name]


def complete_stages(store: str) -> dict[str, tuple[float, bytes]]:
    """Return when each complete stage was sealed, and what its note says."""
    held = Store(store)
    notes = [name for name in held.files("") if name.endswith("/markers/complete.json")]
    return {name: (held.modified(name), held.read(name)) for name in notes}


def unfinished(server: PrefectServer) -> bool:
    """Say whether the small run has stages left to make."""
    plan = small_plan(server)
    return finished_paths(plan, open_store(server.store)) < {spec.path for spec in plan.stages}
