"""Standing servers on loopback, as the README has them: Prefect with basic auth, PostgreSQL."""

import getpass
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from configs.load import load_config
from flows.plan import Plan, make_plan
from flows.progress import finished_paths
from storage.stores import open_store
from storage.verify import stage_paths, verify_stage
from tests.deployments.conftest import AUTH, DEPLOYMENTS, Processes, clean_environment, free_port

PATIENCE = 400.0  # seconds for a run of a few: the machine may be loaded
SHRUNK = [
    "data.digits.per_class={train: 12, val: 4}",
    "networks.small.arguments={width: 4}",
    "networks.small.train.epochs=1",
    "interpretation.selectors={random: {repeats: 1}}",
    "interpretation.budgets=[1.0]",
    "interpretation.interpreters={ice: {components: 3}}",
]
Tree = dict[str, Any]  # Any: JSON
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@dataclass(frozen=True)
class PrefectServer:
    """A Prefect server, the folder in which its runs start, and the store of the deployments."""

    processes: Processes
    url: str
    home: Path
    store: str

    def post(self, path: str, body: object) -> Any:  # Any: JSON
        """Ask the API as somebody who may."""
        user, _, password = AUTH.partition(":")
        answer = httpx.post(f"{self.url}{path}", json=body, auth=(user, password), timeout=60)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def get(self, path: str) -> Any:  # Any: JSON
        """Read from the API as somebody who may."""
        user, _, password = AUTH.partition(":")
        return httpx.get(f"{self.url}{path}", auth=(user, password), timeout=60).raise_for_status().json()

    def deploy(self, *arguments: str, **variables: str) -> str:
        """Send deployments as the README says."""
        places = {"LAYERLORE_HOME": str(self.home), "LAYERLORE_STORE": self.store, **variables}
        return self.processes.call(DEPLOYMENTS / "deploy.sh", *arguments, **places)

    def start_worker(self) -> "subprocess.Popen[bytes]":
        """Start a process worker as the README says, and wait until the server knows it."""
        worker = self.processes.start("prefect", "worker", "start", "--pool", "layerlore", "--type", "process")
        self.processes.wait_for(
            lambda: any(w["status"] == "ONLINE" for w in self.post("/work_pools/layerlore/workers/filter", {})),
            "the worker",
        )
        return worker

    def flow_runs(self, deployment: str, **state: object) -> list[Tree]:
        """Return the flow runs of a deployment, the oldest first."""
        chosen = {"deployments": {"name": {"any_": [deployment]}}, "sort": "EXPECTED_START_TIME_ASC"}
        found: list[Tree] = self.post("/flow_runs/filter", {**chosen, **({"flow_runs": state} if state else {})})
        return found

    def state(self, flow_run: str | UUID) -> str:
        """Return the type of a flow run's state."""
        return str(self.get(f"/flow_runs/{flow_run}")["state_type"])

    def wait_for_state(self, flow_run: str | UUID, wanted: str, patience: float) -> None:
        """Wait until a flow run has the state `wanted`; another end fails."""

        def reached() -> bool:
            found = self.state(flow_run)
            assert found == wanted or found not in ENDED, (
                f"{found}: {self.get(f'/flow_runs/{flow_run}')['state']['message']}\n{self.processes.tails()}"
            )
            return found == wanted

        self.processes.wait_for(reached, f"state {wanted}", patience)


def small_plan(server: PrefectServer) -> Plan:
    """Return the plan of a small run of the preset digits."""
    return make_plan(load_config("digits", [f"store={server.store}", *SHRUNK]))


def check_finished(server: PrefectServer) -> None:
    """Compare what a small run of the preset digits should have left with what there is."""
    plan, store = small_plan(server), open_store(server.store)
    assert finished_paths(plan, store) == {spec.path for spec in plan.stages}
    assert [line for path in stage_paths(store) for line in verify_stage(store, path)] == []
    assert store.exists("reports/digits/index.html")
    assert list(server.home.iterdir()) in ([], [server.home / "tls"])  # nothing went where the run started


@contextmanager
def prefect_server(folder: Path, database: str | None = None, store: str | None = None) -> Iterator[PrefectServer]:
    """Start a standing server, on SQLite where no database is given, and stop it with all that was started for it."""
    url = f"http://127.0.0.1:{free_port()}/api"
    home = folder / "home"
    home.mkdir()
    settings = {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_API_URL": url,
        "PREFECT_API_AUTH_STRING": AUTH,
        "PREFECT_CLI_COLORS": "false",
        "PREFECT_SERVER_UI_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
    }
    processes = Processes(folder, clean_environment(**settings))
    server_settings = {"PREFECT_SERVER_API_AUTH_STRING": AUTH}
    if database is not None:
        server_settings["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database
    try:
        port = url.removesuffix("/api").rpartition(":")[2]
        processes.start("prefect", "server", "start", "--host", "127.0.0.1", "--port", port, **server_settings)
        processes.wait_for(lambda: healthy(url), "the Prefect server")
        yield PrefectServer(processes, url, home, store or str(folder / "lore"))
    finally:
        processes.stop()


def healthy(url: str) -> bool:
    """Say whether a Prefect server answers."""
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def postgres() -> Iterator[str]:
    """Start a PostgreSQL server on loopback and return its address for Prefect."""
    programs = shutil.which("initdb"), shutil.which("postgres")
    if None in programs:
        pytest.skip("needs PostgreSQL's programs initdb and postgres on PATH")
    owner = unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="layerlore-postgres-"))
    password = folder / "password"
    password.write_text("not-a-secret")
    server = None
    try:
        if owner is not None:
            shutil.chown(folder, owner)
            shutil.chown(password, owner)
        home = clean_environment(HOME=str(folder))
        run_as: dict[str, Any] = {"user": owner, "cwd": folder, "env": home}  # Any: of different types
        data, port, log = folder / "data", free_port(), folder / "log"
        made = ["--username=prefect", f"--pwfile={password}", "--auth=scram-sha-256", "--no-sync", str(data)]
        done = subprocess.run([str(programs[0]), *made], capture_output=True, text=True, check=False, **run_as)
        assert done.returncode == 0, done.stdout + done.stderr
        options = ["-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", str(folder), "-c", "fsync=off"]
        with log.open("wb") as stream:
            server = subprocess.Popen([str(programs[1]), *options], stdout=stream, stderr=stream, **run_as)
        wait_for_text(log, "database system is ready to accept connections", lambda: server.poll() is None)
        yield f"postgresql+asyncpg://prefect:not-a-secret@127.0.0.1:{port}/postgres"
    finally:
        if server is not None:
            server.send_signal(signal.SIGINT)  # at once, even with open connections
            server.wait(timeout=120)
        shutil.rmtree(folder, ignore_errors=True)


def unprivileged() -> str | None:
    """Return the user that PostgreSQL runs as, since it refuses root; None: the present user."""
    if os.geteuid() != 0:
        return None
    import pwd

    known = {entry.pw_name for entry in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in known:
            return name
    pytest.skip(f"PostgreSQL does not run as {getpass.getuser()}, and there is not another user")


def wait_for_text(log: Path, text: str, alive: Callable[[], bool], patience: float = 240) -> None:
    """Wait until a program has said something."""
    until = time.monotonic() + patience
    while text not in log.read_text(errors="replace"):
        assert alive(), log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.1)
