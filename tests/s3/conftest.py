"""S3-compatible servers on loopback: moto, which is quick, and OpenStack Swift, which is a real one."""

import json
import subprocess
import sys
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import boto3  # type: ignore[import-untyped]  # ships no types
import pytest

from storage import s3

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SECRET = "hush-5f3b9c17"  # of servers that live as long as the tests; also in swift_server.py


@dataclass(frozen=True)
class Server:
    """An S3-compatible server and what opens it."""

    name: str
    endpoint: str
    access: str = "test:tester"
    secret: str = SECRET

    @property
    def environment(self) -> dict[str, str]:
        """What a client finds its way by; nothing of the user's own settings."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def make_bucket(self) -> str:
        """Make a bucket and return its name."""
        name = f"test-{uuid.uuid4().hex[:8]}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # boto3 leaves its sockets to the garbage collector
            keys = {"aws_access_key_id": self.access, "aws_secret_access_key": self.secret}
            client = boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1", **keys)
            client.create_bucket(Bucket=name)
            client.close()
        return name


@contextmanager
def started(command: list[str], log: Path) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Run a server that prints its endpoint, and stop it by its own process."""
    with log.open("w") as errors, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            assert line, f"{' '.join(command)} did not start: {log.read_text()[-2000:]}"
            yield json.loads(line)["endpoint"], server
        finally:
            server.terminate()
            server.wait(60)


@pytest.fixture(scope="session")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """moto's server, in a process of its own: speaks everything, believes any secret."""
    if find_spec("moto") is None or find_spec("flask") is None:
        pytest.skip("needs the package moto[server]")
    with started([sys.executable, str(HERE / "moto_server.py")], tmp_path_factory.mktemp("moto") / "log") as (place, _):
        yield Server("moto", place)


@pytest.fixture(scope="session")
def swift_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """OpenStack Swift in an environment of its own."""
    python = ROOT / ".venv-swift" / "bin" / "python"
    if not python.exists():
        pytest.skip("needs OpenStack Swift: `make swift`")
    folder = tmp_path_factory.mktemp("swift")
    with started([str(python), str(HERE / "swift_server.py"), str(folder)], folder / "log") as (place, _):
        yield Server("swift", place)


@pytest.fixture(scope="module", params=["moto", "swift"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each server in turn."""
    found: Server = request.getfixturevalue(f"{request.param}_server")
    return found


@contextmanager
def opened(server: Server) -> Iterator[pytest.MonkeyPatch]:
    """Let this process use a server, and no settings of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION"):
            patch.delenv(name, raising=False)
        for name, value in server.environment.items():
            patch.setenv(name, value)
        s3.close()
        yield patch
        s3.close()


@pytest.fixture(scope="module")
def use(server: Server) -> Iterator[Server]:
    """The server, which this process uses for the length of the module."""
    with opened(server):
        yield server


@pytest.fixture
def far(use: Server) -> str:
    """The URL of a store that is not there yet, in a bucket of its own."""
    return f"s3://{use.make_bucket()}/some/where"


@pytest.fixture(scope="session")
def reaching() -> Callable[[Server], object]:
    """A context in which this process uses another server, or the same with other settings."""
    return opened


@pytest.fixture
def spoilt(use: Server, tmp_path: Path) -> Callable[..., object]:
    """A context: the server behind a proxy that spoils some of the requests; yields it and, at the end, counts."""

    @contextmanager
    def behind(*arguments: object) -> Iterator[tuple[Server, dict[str, int]]]:
        command = [sys.executable, str(HERE / "fault_proxy.py"), "--backend", use.endpoint, *map(str, arguments)]
        counts: dict[str, int] = {}
        with started(command, tmp_path / "proxy.log") as (place, process):
            yield replace(use, endpoint=place), counts
            process.terminate()
            assert process.stdout is not None
            counts.update(json.loads(process.stdout.readline()))

    return behind
