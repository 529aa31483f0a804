"""Processes of a deployment on loopback: started, waited for, stopped."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

DEPLOYMENTS = Path(__file__).resolve().parents[2] / "deployments"
PATIENCE = 300.0  # seconds; a fresh database on a loaded machine needs over 40
AUTH = "tester:not-a-secret"


@dataclass
class Processes:
    """Starts programs with one environment, and stops them in reverse order."""

    folder: Path
    environment: dict[str, str]
    started: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start(self, *command: object, **variables: str) -> "subprocess.Popen[bytes]":
        """Start a program; its output goes to a file of its own."""
        with self.log(len(self.started)).open("wb") as stream:
            process = subprocess.Popen(
                [str(part) for part in command],
                env={**self.environment, **variables},
                cwd=self.folder,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def call(self, *command: object, **variables: str) -> str:
        """Run a program to its end and return what it prints; fails with that if its code is not 0."""
        done = subprocess.run(
            [str(part) for part in command],
            env={**self.environment, **variables},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def wait_for(self, condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
        """Wait until something is so, as long as all programs live."""
        until = time.monotonic() + patience
        while not condition():
            dead = [number for number, process in enumerate(self.started) if process.poll() is not None]
            assert not dead, f"waiting for {what}: {self.text(dead[0])}"
            assert time.monotonic() < until, f"waited {patience:g} s for {what}\n{self.tails()}"
            time.sleep(0.2)

    def log(self, number: int) -> Path:
        """Return where a program's output is."""
        return self.folder / f"log-{number}"

    def text(self, number: int) -> str:
        """Return a program's output."""
        return self.log(number).read_text(errors="replace")

    def tails(self) -> str:
        """Return the end of what every program said."""
        return "\n".join(f"--- {number}\n{self.text(number)[-3000:]}" for number in range(len(self.started)))

    def stop(self) -> None:
        """End the programs, the last one first, and what they started."""
        for process in reversed(self.started):
            stop(process)


def stop(process: "subprocess.Popen[bytes]", patience: float = 60.0) -> None:
    """End a program by SIGTERM, then with all below it by SIGKILL."""
    children: list[psutil.Process] = []
    if process.poll() is None:
        children = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        try:
            process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


def free_port() -> int:
    """Return a port of loopback that nothing listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def listens(port: int) -> bool:
    """Say whether something listens on a port of loopback."""
    with socket.socket() as sock:
        sock.settimeout(1)
        return sock.connect_ex(("127.0.0.1", port)) == 0


def clean_environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without the settings of Prefect, Dask, clouds; our programs first on PATH."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "DASK_", "AWS_", "LAYERLORE_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    return {**kept, "PATH": path, "OMP_NUM_THREADS": "1", "DO_NOT_TRACK": "1", **variables}


@pytest.fixture
def deployments() -> Path:
    """The folder of the deployments."""
    return DEPLOYMENTS


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Programs of one test."""
    opened = Processes(tmp_path, clean_environment())
    yield opened
    opened.stop()


@dataclass(frozen=True)
class TlsCluster:
    """A running scheduler with workers, and what a client needs to join."""

    certificates: Path
    port: int

    @property
    def address(self) -> str:
        return f"tls://127.0.0.1:{self.port}"

    def arguments(self, folder: Path | None = None) -> dict[str, object]:
        """Return the `cluster.arguments` of a config."""
        held = folder or self.certificates
        return {
            "tls_ca_file": str(held / "ca.pem"),
            "tls_client_cert": str(held / "client.pem"),
            "tls_client_key": str(held / "client.key"),
            "require_encryption": True,
        }


def start_cluster(
    processes: Processes, folder: Path, workers: Sequence[object] = ("workers.sh",), **variables: str
) -> TlsCluster:
    """Make certificates and start a scheduler and workers by the scripts that the README names."""
    address = DEPLOYMENTS / "address"
    processes.call(sys.executable, address / "certificates.py", folder)
    cluster = TlsCluster(folder, free_port())
    processes.start(address / "scheduler.sh", folder, "127.0.0.1", cluster.port, LAYERLORE_DASHBOARD="127.0.0.1:0")
    processes.wait_for(lambda: listens(cluster.port), "the Dask scheduler")
    script, *arguments = workers
    processes.start(address / str(script), folder, cluster.address, *arguments, **variables)
    return cluster
