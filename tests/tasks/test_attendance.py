"""Workers that are not there: told, waited for, given up, and replaced where they are jobs of a batch system."""

import threading
import time
from collections.abc import Iterator
from itertools import chain, repeat
from typing import Any

import pytest

from tasks import attendance
from tasks.attendance import Attendance
from tasks.rejoining import ClusterError


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks that follow each other at once."""
    for name, seconds in (("SOON", 0.001), ("LOOK", 0.005), ("TELL", 0.02), ("LEFT", 0.05)):
        monkeypatch.setattr(attendance, name, seconds)


class FakeClient:
    """A client that sees what it is given, one look after the other; the last for ever."""

    def __init__(self, *looks: dict[str, dict[str, float]] | OSError) -> None:
        self._looks: Iterator[dict[str, dict[str, float]] | OSError] = chain(looks[:-1], repeat(looks[-1]))

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:  # Any: as Dask's
        assert n_workers == -1
        found = next(self._looks)
        if isinstance(found, OSError):
            raise found
        return {"workers": {name: {"name": name, "resources": has} for name, has in found.items()}}


class FakeCluster:
    """A batch system with jobs of one worker or more."""

    def __init__(self, jobs: dict[str, dict[str, Any]]) -> None:
        self.worker_spec = jobs
        self.told: list[object] = []

    def sync(self, function: Any, *arguments: object) -> None:
        function(*arguments)

    def scale_down(self, names: list[str]) -> None:
        self.told.append(sorted(names))

    def scale(self, workers: int) -> None:
        self.told.append(workers)


def test_the_first_worker_is_awaited_and_the_wait_is_told_once() -> None:
    told: list[str] = []
    client = FakeClient(*[{}] * 60, {"a": {}})
    Attendance(limit=None, say=told.append).await_first(client)
    assert told == ["waiting for a worker"]
    Attendance(say=told.append).await_first(FakeClient({"a": {}}))
    assert len(told) == 1


def test_nobody_within_the_limit_is_one_line() -> None:
    told: list[str] = []
    with pytest.raises(ClusterError) as caught:
        Attendance(limit=0.1, say=told.append).await_first(FakeClient({"a": {"CPU": 1}}), "GPU")
    what = "worker with the resource GPU"
    assert str(caught.value).startswith(f"no {what} for 0.1 s (cluster.worker_timeout); nothing is lost")
    assert told == [f"waiting for a {what}, at most 0.1 s"]


def test_who_waits_for_workers_that_left_is_released() -> None:
    released = threading.Event()
    began = time.monotonic()
    with (
        pytest.raises(ClusterError, match=r"no worker for 0\.2 s"),
        Attendance(limit=0.2).watching(FakeClient({"a": {}}, {}), None, released.set),
    ):
        assert released.wait(30)
    assert time.monotonic() - began >= 0.2


def test_workers_that_come_back_in_time_are_enough() -> None:
    client, before = FakeClient({"a": {}}, *[{}] * 5, {"a": {}}), threading.active_count()
    with Attendance(limit=5).watching(client, None, lambda: pytest.fail("gave up")):
        time.sleep(0.2)
    assert threading.active_count() == before


def test_a_scheduler_that_is_away_is_no_missing_worker() -> None:
    with Attendance(limit=0.1).watching(FakeClient(OSError("gone")), None, lambda: pytest.fail("gave up")):
        time.sleep(0.4)


@pytest.mark.parametrize(
    ("jobs", "looks", "told"),
    [
        ({"job-0": {}, "job-1": {}}, ["job-0", "job-1"], []),
        ({"job-0": {}, "job-1": {}}, ["job-1"], [["job-0"], 2]),
        ({"job-0": {"group": ["-0", "-1"]}}, ["job-0-1"], []),  # one of its two processes lives
        ({"job-0": {"group": ["-0", "-1"]}}, [], [["job-0-0", "job-0-1"], 2]),
    ],
)
def test_jobs_that_have_ended_are_asked_for_again(
    jobs: dict[str, dict[str, Any]], looks: list[str], told: list[object]
) -> None:
    everybody = [f"{name}{part}" for name, spec in jobs.items() for part in spec.get("group", [""])]
    cluster = FakeCluster(jobs)
    client = FakeClient({name: {} for name in everybody}, {name: {} for name in looks})
    with Attendance(cluster, 2, 30).watching(client, None, lambda: pytest.fail("gave up")):
        time.sleep(0.4)
    assert cluster.told == told  # once, and queued jobs, which were never there, are left in the queue


def test_queued_jobs_are_left_in_the_queue() -> None:
    cluster = FakeCluster({"job-0": {}, "job-1": {}})
    with Attendance(cluster, 2, 30).watching(FakeClient({"job-0": {}}), None, lambda: pytest.fail("gave up")):
        time.sleep(0.3)
    assert cluster.told == []
