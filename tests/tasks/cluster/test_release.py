"""Workers that end before their pool is closed, while the process that started them goes on."""

import os
import time

import psutil
import pytest

from configs.cluster import Cluster
from tasks.cluster.parallel import open_pool


def place(_: int) -> int:
    """Return the number of the process that runs a partition."""
    return os.getpid()


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore")  # Dask's own
def test_released_worker_processes_end_before_the_pool_is_closed() -> None:
    with open_pool(Cluster(kind="local", workers=2)) as pool:
        workers = [psutil.Process(number) for number in {number for _, number in pool.map(place, [1, 2, 3, 4])}]
        assert workers
        assert os.getpid() not in [worker.pid for worker in workers]
        pool.release()
        pool.release()
        assert psutil.wait_procs(workers, timeout=60)[1] == []


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore")  # Dask's own
@pytest.mark.parametrize("ended", [False, True])
def test_released_workers_start_again_for_further_partitions(ended: bool) -> None:
    with open_pool(Cluster(kind="local", workers=2, worker_timeout=60)) as pool:
        for _ in range(2):
            before = {number for _, number in pool.map(place, range(8))}
            pool.release()
            if ended:
                psutil.wait_procs([psutil.Process(number) for number in before], timeout=60)
            found = list(pool.map(place, range(8)))
            assert sorted(item for item, _ in found) == list(range(8))
            if ended:
                assert not {number for _, number in found} & before


@pytest.mark.filterwarnings("ignore")  # Dask's own
@pytest.mark.parametrize("kind", ["serial", "threads"])
def test_a_pool_without_worker_processes_is_released_without_effect(kind: str) -> None:
    with open_pool(Cluster(kind=kind, workers=2)) as pool:
        pool.release()
        assert {number for _, number in pool.map(place, [1, 2])} == {os.getpid()}


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore")  # Dask's own
def test_workers_of_another_process_outlive_a_release() -> None:
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as running:
        with open_pool(Cluster(kind="address", address=running.scheduler_address)) as pool:
            pool.release()
            time.sleep(1)
            ((_, number),) = pool.map(place, [1])
        assert psutil.Process(number).is_running()
