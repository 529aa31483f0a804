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
    """A batch system with jobs of one worker or more, which may refuse what it is asked so many times."""

    def __init__(self, jobs: dict[str, dict[str, Any]], refusals: int = 0) -> None:
        self.worker_spec = dict(jobs)
        self.refusals = refusals
        self.ended: list[str] = []
        self.asked: set[int] = set()

    def sync(self, function: Any, *arguments: object) -> None:
        function(*arguments)

    def scale_down(self, names: list[str]) -> None:
        if self.refusals:
            self.refusals -= 1
            raise OSError("slurm_load_jobs error:\n  Unable to contact slurm controller")
        self.ended += names
        self.worker_spec = {job: spec for job, spec in self.worker_spec.items() if not names[0].startswith(job)}

    def scale(self, workers: int) -> None:
        self.asked.add(workers)


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
    ("jobs", "looks", "ended"),
    [
        ({"job-0": {}, "job-1": {}}, ["job-1"], ["job-0"]),
        ({"job-0": {"group": ["-0", "-1"]}}, ["job-0-1"], []),  # one of its two processes lives
        ({"job-0": {"group": ["-0", "-1"]}}, [], ["job-0-0", "job-0-1"]),
        ({"job-0": {}, "job-1": {}, "job-2": {}}, ["job-1"], ["job-0"]),  # job-2 is in the queue
    ],
)
def test_jobs_that_have_ended_are_asked_for_again(
    jobs: dict[str, dict[str, Any]], looks: list[str], ended: list[str]
) -> None:
    everybody = [f"{job}{part}" for job, spec in jobs.items() if job != "job-2" for part in spec.get("group", [""])]
    cluster = FakeCluster(jobs)
    client = FakeClient({name: {} for name in everybody}, {name: {} for name in looks})
    with Attendance(cluster, 2, 30).watching(client, None, lambda: pytest.fail("gave up")):
        time.sleep(0.4)
    assert cluster.ended == ended  # once
    assert cluster.asked == {2}


def test_nothing_is_asked_of_a_batch_system_while_everybody_is_there() -> None:
    cluster = FakeCluster({"job-0": {}, "job-1": {}})
    with Attendance(cluster, 2, 30).watching(FakeClient({"job-0": {}, "job-1": {}}), None, lambda: None):
        time.sleep(0.2)
    assert not cluster.asked
    assert not cluster.ended


def test_a_job_that_ends_between_two_waits_is_asked_for_again() -> None:
    cluster = FakeCluster({"job-0": {}, "job-1": {}})
    attendance = Attendance(cluster, 2, 30)
    attendance.await_first(FakeClient({"job-0": {}, "job-1": {}}))
    time.sleep(0.1)
    with attendance.watching(FakeClient({"job-1": {}}), None, lambda: pytest.fail("gave up")):
        time.sleep(0.2)
    assert cluster.ended == ["job-0"]


def test_a_batch_system_that_refuses_is_told_once_and_asked_again() -> None:
    told: list[str] = []
    cluster = FakeCluster({"job-0": {}, "job-1": {}}, refusals=3)
    client = FakeClient({"job-0": {}, "job-1": {}}, {"job-1": {}})
    with Attendance(cluster, 2, 30, told.append).watching(client, None, lambda: pytest.fail("gave up")):
        time.sleep(0.5)
    assert told == ["a job that ended is not replaced yet: slurm_load_jobs error: Unable to contact slurm controller"]
    assert cluster.ended == ["job-0"]
    assert cluster.asked == {2}
