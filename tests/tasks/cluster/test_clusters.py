"""Dask clusters: what a config may ask of them is looked at before anything starts."""

import subprocess
import sys
from pathlib import Path

import pytest

from configs.cluster import Cluster
from tasks.cluster.clusters import LEAVE, check_cluster, closing_in_time
from tasks.cluster.parallel import open_pool
from tasks.cluster.rejoining import ClusterError


@pytest.mark.parametrize("kind", ["nowhere.Cluster", "distributed.NoSuchCluster"])
def test_a_cluster_class_that_cannot_be_imported_is_named(kind: str) -> None:
    with (
        pytest.raises(ClusterError, match=rf"cluster\.kind: expected an import path, found {kind}: "),
        open_pool(Cluster(kind=kind)),
    ):
        pass


@pytest.mark.parametrize(
    "cluster",
    [
        Cluster(kind="local", gpu_resource="GPU", arguments={"resources": {"GPU": 1}}),
        Cluster(kind="threads", arguments={"lifetime": "1h", "host": "127.0.0.1"}),
        Cluster(kind="local", arguments={"death_timeout": 60, "local_directory": "/tmp", "preload_nanny": []}),
        Cluster(kind="distributed.LocalCluster", gpu_resource="GPU", arguments={"its_own": 1}),
        Cluster(kind="address", address="tcp://127.0.0.1:1", gpu_resource="GPU"),
    ],
)
def test_what_a_cluster_can_give_is_taken(cluster: Cluster) -> None:
    check_cluster(cluster)


class Strict:
    """A cluster class that takes two arguments."""

    def __init__(self, cores: int, memory: str = "1GB") -> None: ...

    def scale(self, n: int) -> None: ...


def test_arguments_are_those_of_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distributed.Strict", Strict, raising=False)
    check_cluster(Cluster(kind="distributed.Strict", arguments={"cores": 2}))
    with pytest.raises(ClusterError) as caught:
        check_cluster(Cluster(kind="distributed.Strict", arguments={"cores": 2, "memry": "2GB"}))
    assert (
        str(caught.value)
        == "cluster.arguments.memry: expected an argument of Strict, found an unknown one; did you mean memory?"
    )


@pytest.fixture
def certificates(tmp_path: Path) -> dict[str, str]:
    """The arguments of a cluster with TLS, whose files hold no certificates."""
    arguments = {"tls_ca_file": "ca.pem", "tls_client_cert": "client.pem", "tls_client_key": "client.key"}
    for name in arguments.values():
        (tmp_path / name).write_text("no certificate")
    return {key: str(tmp_path / name) for key, name in arguments.items()}


@pytest.mark.parametrize(
    "address", ["tls://", "tls://host", "tcp://127.0.0.1:port", "inproc://127.0.0.1/1/1", "tls://a b"]
)
def test_an_address_has_host_and_port(address: str) -> None:
    cluster = Cluster(kind="address", address=address, insecure=True)
    with pytest.raises(ClusterError, match=r"^cluster\.address: expected a tcp, tls, ws or wss address"):
        check_cluster(cluster)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:8786", "tcp://[::1]:8786", "ws://localhost:80"])
def test_an_address_on_this_machine_needs_no_more(address: str) -> None:
    check_cluster(Cluster(kind="address", address=address))


def test_tls_needs_certificates_that_are_there(certificates: dict[str, str]) -> None:
    def refusal(**arguments: object) -> str:
        with pytest.raises(ClusterError) as caught:
            check_cluster(Cluster(kind="address", address="tls://10.0.0.1:8786", arguments=arguments))
        return str(caught.value)

    needed = (
        "cluster.arguments: expected tls_ca_file, tls_client_cert and tls_client_key for a tls:// address, "
        "found none; add them"
    )
    assert refusal() == needed
    assert refusal(require_encryption=True) == needed
    assert refusal(**{**certificates, "tls_ca_file": "/none/ca.pem"}) == (
        "cluster.arguments.tls_ca_file: expected a file, found none at '/none/ca.pem'"
    )
    assert refusal(**{**certificates, "tls_client_key": 5}) == (
        "cluster.arguments.tls_client_key: expected a file, found none at 5"
    )
    assert refusal(tls_client_kex="a") == (
        "cluster.arguments.tls_client_kex: expected an argument of distributed.Security, found an unknown one; "
        "did you mean tls_client_key?"
    )
    assert refusal(**certificates).startswith("cluster.arguments: ")  # the ssl library's own words


class Hung:
    """A client or cluster that does not close, however long it is given."""

    shutdown_on_close = True

    def __init__(self) -> None:
        self.limits: list[float | None] = []

    def close(self, timeout: float | None = None) -> None:
        self.limits.append(timeout)
        if timeout is not None:
            raise TimeoutError


class Signal(BaseException):
    """A signal as Prefect raises it."""


@pytest.mark.parametrize("stopped", [KeyboardInterrupt, Signal])
def test_a_run_that_is_stopped_waits_for_no_cluster(stopped: type[BaseException]) -> None:
    opened = Hung()
    with pytest.raises(stopped), closing_in_time(opened):
        raise stopped
    assert opened.limits == [LEAVE]
    assert not opened.shutdown_on_close


def test_a_run_that_ends_or_fails_waits_until_its_cluster_is_closed() -> None:
    opened = Hung()
    with closing_in_time(opened):
        pass
    with pytest.raises(ClusterError), closing_in_time(opened):
        raise ClusterError
    assert opened.limits == [None, None]
    assert opened.shutdown_on_close


HANGING = """
import asyncio, os, signal, sys, threading, time
from distributed import SpecCluster
from distributed.deploy.spec import ProcessInterface
from configs.cluster import Cluster
from tasks.cluster import clusters
from tasks.cluster import parallel

class Job(ProcessInterface):
    async def start(self):
        if sys.argv[1] == "start":
            await asyncio.sleep(600)
        await super().start()

    async def close(self):
        if sys.argv[1] == "close":
            await asyncio.sleep(600)
        await super().close()

class Batch(SpecCluster):
    def new_worker_spec(self):
        return {len(self.worker_spec): {"cls": Job, "options": {}}}

clusters._cluster_class = lambda kind: Batch
scheduler = {"options": {"host": "127.0.0.1", "dashboard": False}}
from distributed import Scheduler
arguments = {"scheduler": {"cls": Scheduler, **scheduler}, "silence_logs": 50}
signal.signal(signal.SIGTERM, signal.default_int_handler)
def say(text): pass
from tasks.cluster import attendance
look = attendance._Watch.look
def looked(watch):
    found = look(watch)
    if watch.attendance.cluster.worker_spec and not hasattr(say, "at"):
        say.at = time.monotonic()
        os.kill(os.getpid(), signal.SIGTERM)
    return found
attendance._Watch.look = looked
try:
    with parallel.open_pool(Cluster(kind="some.Batch", arguments=arguments, workers=2, worker_timeout=None), say):
        pass
except KeyboardInterrupt:
    print(f"{time.monotonic() - say.at:.1f}")
"""


@pytest.mark.cluster
@pytest.mark.parametrize("hanging", ["start", "close", "nothing"])
def test_a_signal_ends_the_wait_for_workers_of_a_batch_system_that_hangs(hanging: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", HANGING, hanging]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 10, done.stdout
