"""A scheduler and workers as processes of their own, over TLS: who gets in, and one worker per GPU."""

import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from distributed import Client, Security

from configs.cluster import Cluster
from tasks.cluster.parallel import PartitionError, open_pool
from tasks.cluster.rejoining import ClusterError
from tests.deployments.conftest import DEPLOYMENTS, Processes, TlsCluster, clean_environment, start_cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]  # Dask's warnings


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsCluster]:
    """A scheduler with two workers."""
    folder = tmp_path_factory.mktemp("address")
    processes = Processes(folder, clean_environment())
    yield start_cluster(processes, folder / "tls", ("workers.sh", 2, "1GB"))
    processes.stop()


def config(cluster: TlsCluster, **keys: object) -> Cluster:
    """Return the section of a config that joins a cluster."""
    given = {"kind": "address", "address": cluster.address, "arguments": cluster.arguments()}
    return Cluster.model_validate({**given, **keys})


def client(cluster: TlsCluster) -> Client:
    """Return a client of Dask's own."""
    return Client(cluster.address, security=Security(**cluster.arguments()), set_as_default=False, timeout="120s")


def test_partitions_are_done_by_two_processes_of_one_thread(running: TlsCluster) -> None:
    with open_pool(config(running)) as pool:
        assert dict(pool.map(abs, [-3, 1, -2])) == {-3: 3, 1: 1, -2: 2}
    with client(running) as opened:
        opened.wait_for_workers(2, timeout=120)
        workers = opened.scheduler_info(n_workers=-1)["workers"]
        assert all(address.startswith("tls://127.0.0.1:") for address in workers)
        assert {(worker["nthreads"], worker["memory_limit"]) for worker in workers.values()} == {(1, 10**9)}
        pids = set(opened.run(os.getpid).values())
        assert len(pids) == 2
        assert os.getpid() not in pids
        assert set(opened.run(os.getenv, "OMP_NUM_THREADS").values()) == {"1"}


def test_nobody_gets_in_without_a_certificate_of_the_authority(running: TlsCluster, processes: Processes) -> None:
    foreign = processes.folder / "foreign"
    certificates = Path(__file__).parents[2] / "deployments" / "address" / "certificates.py"
    processes.call(sys.executable, certificates, foreign)
    foreign.joinpath("ca.pem").write_bytes(running.certificates.joinpath("ca.pem").read_bytes())  # trusts the scheduler
    for keys in (
        {"arguments": running.arguments(foreign)},
        {"arguments": {}, "address": running.address.replace("tls://", "tcp://")},
    ):
        with (
            pytest.raises(ClusterError, match=r"cluster\.address: expected a scheduler at"),
            open_pool(config(running, **keys)),
        ):
            pass
    with open_pool(config(running)) as pool:  # who belongs gets in as before
        assert list(pool.map(abs, [-1])) == [(-1, 1)]


def test_a_worker_per_gpu_sees_its_own(processes: Processes) -> None:
    tools = processes.folder / "bin"
    tools.mkdir()
    (tools / "nvidia-smi").write_text(
        '#!/bin/sh\n[ "$*" = "--query-gpu=index --format=csv,noheader" ] && printf "0\\n1\\n"\n'
    )
    (tools / "nvidia-smi").chmod(0o755)
    processes.environment["PATH"] = f"{tools}:{processes.environment['PATH']}"
    processes.environment.pop("CUDA_VISIBLE_DEVICES", None)
    cluster = start_cluster(processes, processes.folder / "tls", ("gpu-workers.sh", "1GB"))
    with client(cluster) as opened:
        opened.wait_for_workers(2, timeout=120)
        workers = opened.scheduler_info(n_workers=-1)["workers"].values()
        assert {str(worker["name"]).removeprefix(f"{socket.gethostname()}-") for worker in workers} == {
            "gpu-0",
            "gpu-1",
        }
        assert [worker["resources"] for worker in workers] == [{"GPU": 1.0}] * 2
        assert sorted(opened.run(os.getenv, "CUDA_VISIBLE_DEVICES").values()) == ["0", "1"]
    with open_pool(config(cluster, gpu_resource="GPU")) as pool:
        assert dict(pool.map(abs, [-1, -2], network=True)) == {-1: 1, -2: 2}
    script = processes.started[-1]
    below = psutil.Process(script.pid).children(recursive=True)
    assert len(below) >= 2
    script.send_signal(signal.SIGTERM)
    script.wait(timeout=120)
    assert psutil.wait_procs(below, timeout=60)[1] == []


def test_a_worker_of_other_code_that_joins_later_makes_nothing(processes: Processes) -> None:
    other, root = processes.folder / "other", Path(__file__).parents[2]
    for package in ("configs", "flows", "storage", "tasks"):
        shutil.copytree(root / package, other / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (other / "tasks" / "cluster" / "versions.py").open("a") as file:
        file.write("# another version\n")
    cluster = start_cluster(processes, processes.folder / "tls", ("workers.sh", 1, "1GB"))
    with open_pool(config(cluster)) as pool:
        assert list(pool.map(abs, [-1])) == [(-1, 1)]
        script = DEPLOYMENTS / "address" / "workers.sh"
        processes.start(script, cluster.certificates, cluster.address, 1, "1GB", PYTHONPATH=str(other))
        with client(cluster) as opened:
            opened.wait_for_workers(2, timeout=120)
        done = list[object]()
        refused = (
            r"^partition 0\.\d+: worker tls://127\.0\.0\.1:\d+: expected layerlore source \w{12}, found \w{12}; "
            r"restart the worker( \(\d+ of 60 partitions failed\))?$"  # the other may have stolen all but one
        )
        with pytest.raises(PartitionError, match=refused):
            done.extend(pool.map(time.sleep, [0.02 + number / 10000 for number in range(60)]))
        assert done
    with pytest.raises(ClusterError, match=r"^worker tls://\S+: expected layerlore source"), open_pool(config(cluster)):
        pass


def test_a_worker_without_layerlore_is_named(processes: Processes) -> None:
    blocker = "import sys\nsys.modules['tasks'] = None\n"
    (processes.folder / "without.py").write_text(blocker)
    cluster = start_cluster(
        processes,
        processes.folder / "tls",
        ("workers.sh", 1, "1GB"),
        DASK_DISTRIBUTED__WORKER__PRELOAD=f"['{processes.folder / 'without.py'}']",
    )
    named = r"^worker tls://\S+: expected layerlore, found .*tasks.*; install layerlore there and restart the worker$"
    with pytest.raises(ClusterError, match=named), open_pool(config(cluster)):
        pass
