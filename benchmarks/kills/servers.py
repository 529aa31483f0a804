"""The servers of a run on loopback: killed, and started again at the same port, as a supervisor would."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from tests.deployments.conftest import free_port, listens
from tests.deployments.servers import healthy
from tests.s3.conftest import ROOT, Server

PATIENCE = 180.0  # seconds for a server to answer
LOOK = 0.05  # seconds between two looks at a server
AWAY = 3.0  # seconds for which a killed server stays away, at most
SWIFT = ROOT / ".venv-swift" / "bin" / "python"


@dataclass
class Supervised:
    """A program that is kept running, at one address."""

    name: str
    command: list[str]
    answers: Callable[[], bool]
    folder: Path
    environment: dict[str, str]
    process: "subprocess.Popen[bytes] | None" = None
    starts: int = 0

    @property
    def log(self) -> Path:
        """What the program has said since its last start."""
        return self.folder / f"{self.name}-{self.starts}.log"

    def start(self) -> None:
        """Start the program, and return when it answers."""
        self.starts += 1
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        until = time.monotonic() + PATIENCE
        while not self.answers():
            assert self.process.poll() is None, f"{self.name} has ended; see {self.folder}"
            assert time.monotonic() < until, f"{self.name} does not answer; see {self.folder}"
            time.sleep(LOOK)

    def lives(self) -> bool:
        """Say whether the program runs."""
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """Kill the program with everything that it has started."""
        assert self.process is not None
        below = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        for process in (*below, self.process):
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self, patience: float = 15.0) -> None:
        """End the program."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(patience)
        self.kill()


@dataclass
class Servers:
    """What a campaign needs, started when asked for."""

    folder: Path
    environment: dict[str, str]
    started: dict[str, Supervised] = field(default_factory=dict)

    def prefect(self) -> None:
        """Start a standing Prefect server."""
        port = free_port()
        url = f"http://127.0.0.1:{port}/api"
        program = str(Path(sys.executable).with_name("prefect"))
        command = [program, "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-services"]
        self._start("prefect", command, lambda: healthy(url))
        self.environment["PREFECT_API_URL"] = url

    def dask(self) -> str:
        """Start a Dask scheduler and two workers, and return the scheduler's address."""
        port = free_port()
        program, address = str(Path(sys.executable).with_name("dask")), f"tcp://127.0.0.1:{port}"
        scheduler = ["scheduler", "--host", "127.0.0.1", "--port", str(port), "--dashboard-address", "127.0.0.1:0"]
        workers = ["worker", address, "--nworkers", "2", "--nthreads", "1", "--memory-limit", "2GB"]
        self._start("scheduler", [program, *scheduler], lambda: listens(port))
        workers += ["--dashboard-address", "127.0.0.1:0", "--preload", "tasks.steps.common.training"]
        self._start("worker", [program, *workers], self.joined)
        return address

    def s3(self) -> Server:
        """Start Swift, and let this process and all that it starts find their way to it."""
        port = free_port()
        server = Server("swift", f"http://127.0.0.1:{port}")
        script, place = str(ROOT / "tests" / "s3" / "swift_server.py"), str(self.folder / "swift")
        command = [str(SWIFT), script, place, "--port", str(port)]
        # The script prints its address once all parts of Swift answer: before, the front denies that there is a bucket.
        self._start("s3", command, lambda: "endpoint" in self.started["s3"].log.read_text() and speaks_s3(server))
        self.environment |= server.environment
        os.environ |= server.environment
        return server

    def spoil(self, share: float, seed: int, hang: float) -> None:
        """Put a proxy before S3 that spoils a share of the requests of what is started, not of this process."""
        script, backend = str(ROOT / "tests" / "s3" / "fault_proxy.py"), self.environment["AWS_ENDPOINT_URL"]
        command = [sys.executable, script, "--backend", backend, "--share", str(share), "--seed", str(seed)]
        self._start("proxy", [*command, "--hang", str(hang)], lambda: "\n" in self.started["proxy"].log.read_text())
        place = json.loads(self.started["proxy"].log.read_text().splitlines()[0])
        self.environment["AWS_ENDPOINT_URL"] = place["endpoint"]

    def joined(self) -> bool:
        """Say whether both workers have joined their scheduler: a nanny gives up whose worker dies before."""
        return self.started["worker"].log.read_text(errors="replace").count("Registered to:") >= 2

    def workers(self) -> list[psutil.Process]:
        """Return the processes that do partitions: the nannies' children."""
        parent = self.started["worker"].process if "worker" in self.started else None
        below = psutil.Process(parent.pid).children(recursive=True) if parent and parent.poll() is None else []
        return [process for process in below if is_worker(process)]

    def kill(self, target: str, dice: random.Random) -> None:
        """Kill a server, or one of the workers."""
        if target == "worker" and (workers := self.workers()):
            dice.choice(workers).kill()  # its nanny starts another
        else:
            self.started[target].kill()

    def mend(self, target: str, dice: random.Random) -> None:
        """Start a killed server again, after a while, and the workers of a killed scheduler."""
        time.sleep(dice.uniform(0.0, AWAY))
        while target == "worker" and len(self.workers()) < 2 and self.started["worker"].lives():
            time.sleep(LOOK)  # its nanny starts another, or gives up
        if target == "scheduler":
            self.started["worker"].kill()  # they leave with their scheduler, half a minute later
        for name in ("scheduler", "worker", "prefect", "s3"):
            server = self.started.get(name)
            if server is not None and not server.lives():
                server.start()

    def stop(self) -> None:
        """Stop all servers, the last one first."""
        for server in reversed(self.started.values()):
            server.stop()

    def _start(self, name: str, command: list[str], answers: Callable[[], bool]) -> None:
        """Start a server."""
        self.started[name] = Supervised(name, command, answers, self.folder, self.environment)
        self.started[name].start()


def is_worker(process: psutil.Process) -> bool:
    """Say whether a process is a Dask worker: a spawned one, or one forked from a process that loaded its libraries."""
    try:
        parent, line = process.parent(), " ".join(process.cmdline())
        forked = parent is not None and all("forkserver" in text for text in (line, " ".join(parent.cmdline())))
        return forked or "spawn_main" in line
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


def speaks_s3(server: Server) -> bool:
    """Say whether an S3 server answers, if only that it does not know us."""
    try:
        return httpx.get(server.endpoint, timeout=5).status_code < 500
    except httpx.TransportError:
        return False
