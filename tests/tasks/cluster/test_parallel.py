"""Pools: the same results and errors whatever runs the partitions."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import distributed
import pytest
import threadpoolctl

from configs.cluster import Cluster
from tasks.cluster.attendance import Attendance
from tasks.cluster.parallel import (
    DaskPool,
    PartitionError,
    Pool,
    SerialPool,
    compare_workers,
    open_pool,
)
from tasks.cluster.rejoining import ClusterError
from tasks.cluster.versions import code_facts

KINDS = [
    "serial",
    pytest.param("threads", marks=pytest.mark.filterwarnings("ignore")),  # Dask's own warnings
    pytest.param("local", marks=[pytest.mark.cluster, pytest.mark.filterwarnings("ignore")]),
]


def square(item: int) -> int:
    """Return the square; odd tens fail."""
    if item in (11, 13):
        raise ValueError(f"{item} is unlucky")
    return item * item


def threads(_: int) -> set[int]:
    """Return the numbers of BLAS threads in a partition."""
    import numpy as np

    np.ones((2, 2)) @ np.ones((2, 2))
    return {library["num_threads"] for library in threadpoolctl.threadpool_info()}


def interrupted(_: int) -> bool:
    """Say whether this worker would be interrupted by Ctrl-C."""
    return signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())


@pytest.fixture(scope="module", params=KINDS)
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    """A pool of each kind."""
    with open_pool(Cluster(kind=request.param, workers=2)) as opened:
        yield opened


def test_every_item_comes_back_with_its_result(pool: Pool) -> None:
    assert dict(pool.map(square, [3, 1, 2])) == {3: 9, 1: 1, 2: 4}
    assert list(pool.map(square, [])) == []


def test_failures_do_not_stop_the_others_and_the_first_is_named(pool: Pool) -> None:
    found: dict[int, int] = {}
    with pytest.raises(PartitionError) as caught:
        found.update(pool.map(square, [10, 13, 11, 12]))
    assert found == {10: 100, 12: 144}
    assert str(caught.value) == "partition 13: 13 is unlucky (2 of 4 partitions failed)"
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(PartitionError, match=r"^partition 11: 11 is unlucky$"):
        list(pool.map(square, [11, 12]))


def test_partitions_have_one_blas_thread(pool: Pool) -> None:
    assert {n for _, numbers in pool.map(threads, [1, 2]) for n in numbers} == {1}


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore")  # Dask's own
def test_worker_processes_do_not_see_ctrl_c() -> None:
    with open_pool(Cluster(kind="local", workers=1)) as opened:
        assert list(opened.map(interrupted, [1])) == [(1, False)]
    assert interrupted(0)  # this process does


def has_loaded(_: int) -> bool:
    """Say whether this worker loaded a module that nothing else needs."""
    return "wave" in sys.modules


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore")  # Dask's own
def test_workers_load_libraries_before_their_first_partition() -> None:
    with open_pool(Cluster(kind="local", workers=2), libraries=["wave"]) as opened:
        assert {found for _, found in opened.map(has_loaded, range(6))} == {True}
    with open_pool(Cluster(kind="local", workers=1)) as opened:
        assert list(opened.map(has_loaded, [1])) == [(1, False)]


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore")  # Dask's own
def test_a_result_that_leaves_with_its_worker_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job ends at its walltime after its last partition, and before we look at that."""
    killed, seen = list[int](), list[str]()

    class Late(distributed.as_completed):  # type: ignore[misc]  # distributed has no types
        """Gives the first future once its worker was killed and the scheduler has reported the loss."""

        def __next__(self) -> Any:  # Any: distributed has no types
            future = super().__next__()
            if not killed:
                killed.extend(future.client.run(os.getpid).values())
                os.kill(killed[0], signal.SIGKILL)
                while future.status == "finished":
                    time.sleep(0.001)
            seen.append(future.status)
            return future

    monkeypatch.setattr("distributed.as_completed", Late)
    with open_pool(Cluster(kind="local", workers=1)) as opened:
        assert dict(opened.map(square, [3, 1, 2])) == {3: 9, 1: 1, 2: 4}
    assert seen[0] == "lost"
    assert seen.count("finished") == 3


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore")  # Dask's own
@pytest.mark.parametrize("arguments", [[], ["--one"], [["--one"]]])
def test_libraries_are_loaded_with_those_of_dasks_own_settings(arguments: list[object], tmp_path: Path) -> None:
    (tmp_path / "of_mine.py").write_text(
        "import click\n\n@click.command()\n@click.option('--one', is_flag=True)\n"
        "def dask_setup(worker, one):\n    import sys\n    sys.given = one\n"
    )
    settings = {
        "distributed.worker.preload": [str(tmp_path / "of_mine.py")],
        "distributed.worker.preload-argv": arguments,
    }
    with dask.config.set(settings), open_pool(Cluster(kind="local", workers=1), libraries=["wave"]) as opened:
        assert list(opened.map(has_loaded, [1])) == [(1, True)]
        assert list(opened.map(given, [1])) == [(1, bool(arguments))]


def given(_: int) -> object:
    """Return what a module of Dask's settings kept in this worker."""
    return getattr(sys, "given", None)


def run_python(program: str) -> list[str]:
    """Return the lines that a program prints in a process of its own."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=240)
    return done.stdout.splitlines()


def test_ctrl_c_in_the_block_comes_after_it() -> None:
    program = (
        "import os, signal\nfrom tasks.cluster.clusters import interrupts_stay_here\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell may have started us in the background
        "try:\n    with interrupts_stay_here():\n        os.kill(os.getpid(), signal.SIGINT)\n"
        "        print('in the block')\n    print('beyond')\nexcept KeyboardInterrupt:\n    print('interrupted')"
    )
    assert run_python(program) == ["in the block", "interrupted"]


@pytest.mark.parametrize("error", [TimeoutError, ConnectionResetError])
def test_a_passing_fault_is_tried_once_more(error: type[Exception]) -> None:
    calls: list[int] = []

    def unsteady(item: int) -> int:
        calls.append(item)
        if len(calls) < 2:
            raise error("for now")
        return item

    assert list(SerialPool().map(unsteady, [7])) == [(7, 7)]
    assert calls == [7, 7]

    def down(item: int) -> int:
        calls.append(item)
        raise error("for good")

    with pytest.raises(PartitionError, match="partition 8: for good"):
        list(SerialPool().map(down, [8]))
    assert calls == [7, 7, 8, 8]


def test_an_error_without_text_is_named_by_its_kind() -> None:
    def fail(_: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(PartitionError, match=r"^partition 1: ZeroDivisionError$"):
        list(SerialPool().map(fail, [1]))


class FakeClient:
    """A client whose workers declare resources."""

    status = "running"

    def __init__(self, *resources: dict[str, float]) -> None:
        self._resources = resources

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:  # Any: as Dask's
        assert n_workers == -1
        return {"workers": {str(i): {"name": i, "resources": found} for i, found in enumerate(self._resources)}}


def test_a_gpu_resource_that_no_worker_has_is_named() -> None:
    pool = DaskPool(FakeClient({}, {"CPU": 1}), "GPU")
    with pytest.raises(
        ClusterError, match=r"cluster\.gpu_resource: expected a worker with 'GPU', found 2 workers without it; .* GPU=1"
    ):
        list(pool.map(square, [1], network=True))
    DaskPool(FakeClient({}, {"GPU": 1}), "GPU")._await_resource("GPU")


@pytest.mark.parametrize("resources", [[], [{"CPU": 1}]])
def test_workers_with_gpus_that_are_not_there_yet_are_waited_for(resources: list[dict[str, float]]) -> None:
    pool = DaskPool(FakeClient(*resources), "GPU", Attendance(object(), 2, limit=0.1))
    with pytest.raises(ClusterError, match=r"expected a worker with the resource GPU within 0\.1 s, found none"):
        list(pool.map(square, [1], network=True))
    with pytest.raises(ClusterError, match="found 2 workers without it"):
        DaskPool(FakeClient({}, {"CPU": 1}), "GPU", Attendance(object(), 2)).map(square, [1], network=True).__next__()


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore")  # Dask's own
def test_local_workers_get_the_resources_that_arguments_declare() -> None:
    arguments = {"resources": {"GPU": 1}}
    with open_pool(Cluster(kind="local", workers=1, gpu_resource="GPU", arguments=arguments)) as opened:
        assert list(opened.map(square, [3], network=True)) == [(3, 9)]


def test_workers_with_other_code_are_refused() -> None:
    ours = code_facts()
    compare_workers({"tcp://a": dict(ours), "tcp://b": dict(ours)})
    for name in ours:
        with pytest.raises(ClusterError, match=rf"worker tcp://b: expected {name} .*, found other; restart the worker"):
            compare_workers({"tcp://a": ours, "tcp://b": {**ours, name: "other"}})


def test_a_worker_without_layerlore_is_refused() -> None:
    error = ModuleNotFoundError("No module named 'tasks'")
    with pytest.raises(
        ClusterError, match=r"worker tcp://b: expected layerlore, found No module named 'tasks'; install layerlore"
    ):
        compare_workers({"tcp://a": code_facts(), "tcp://b": error})


def test_a_worker_that_went_away_meanwhile_is_not_compared() -> None:
    compare_workers({"tcp://a": code_facts(), "tcp://b": OSError("Timed out trying to connect to tcp://b")})


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore")  # Dask's own
def test_a_scheduler_that_strangers_could_use_is_refused() -> None:
    cluster = Cluster(kind="local", workers=1, arguments={"host": "0.0.0.0"})
    with (
        pytest.raises(
            ClusterError,
            match=r"cluster\.arguments: expected a scheduler on .*, found one at tcp://.*; use TLS, or set",
        ),
        open_pool(cluster),
    ):
        pass
    with open_pool(cluster.model_copy(update={"insecure": True})) as opened:
        assert list(opened.map(square, [3])) == [(3, 9)]


def test_the_source_digest_is_that_of_the_code() -> None:
    digest, root = hashlib.sha256(), Path(__file__).resolve().parents[3]
    for package in ("configs", "flows", "storage", "tasks"):
        files = sorted((root / package).rglob("*.py"))
        assert len(files) > 3
        for file in files:
            digest.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes())
    assert code_facts()["layerlore source"] == digest.hexdigest()[:12]
    numeric = {"numpy", "scipy", "scikit-learn", "pillow", "torch", "torchvision"}
    assert set(code_facts()) == {"layerlore source", "zarr", "distributed"} | numeric


def test_serial_needs_no_dask() -> None:
    program = (
        "import sys\nfrom configs.cluster import Cluster\nfrom tasks.cluster.parallel import open_pool\n"
        "with open_pool(Cluster(kind='serial')) as pool:\n    print(list(pool.map(abs, [-2])))\n"
        "print('distributed' in sys.modules)"
    )
    assert run_python(program) == ["[(-2, 2)]", "False"]


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore")  # Dask's own
@pytest.mark.parametrize(("arguments", "expected"), [({}, 1), ({"n_workers": 2}, 2)])
def test_a_cluster_is_kept_at_the_size_that_its_arguments_ask_for(arguments: dict[str, int], expected: int) -> None:
    local = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "threads_per_worker": 1}
    cluster = Cluster(kind="distributed.LocalCluster", workers=1, arguments={**local, **arguments})
    with open_pool(cluster) as pool:
        assert isinstance(pool, DaskPool)
        assert pool.attendance.workers == expected
