"""Workers that are not there: reported, waited for, given up, and replaced where they are jobs of a batch system.

No time passes but what a look or a wait takes, so that nothing depends on how quick this machine is.
"""

import getpass
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.cluster import attendance
from tasks.cluster.attendance import LEFT, REPORT_AFTER, SOON, Attendance
from tasks.cluster.queued import jobs_not_queued
from tasks.cluster.rejoining import ClusterError

Look = dict[str, dict[str, float]]  # who is there, with which resources

STEP = attendance.LOOK  # seconds that a look takes


@dataclass
class FakeTime:
    """A clock that only waiting and looking move."""

    now: float = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    """The time of watches; those that look from a thread do so without a pause."""
    fake, watch = FakeTime(), attendance._Watch
    monkeypatch.setattr(attendance, "time", fake)
    monkeypatch.setattr(attendance, "_Watch", lambda who, client, resource: watch(who, client, resource, fake.now))
    monkeypatch.setattr(attendance, "LOOK", 0.0005)
    return fake


class FakeClient:
    """A client that sees what it is given, one look after the other; the last for ever."""

    def __init__(self, *looks: Look | OSError, clock: FakeTime | None = None, step: float = STEP) -> None:
        self._looks: Iterator[Look | OSError] = chain(looks[:-1], repeat(looks[-1]))
        self._clock, self._step = clock or FakeTime(), step
        self.looked = 0

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:  # Any: as Dask's
        assert n_workers == -1
        self._clock.sleep(self._step)
        self.looked += 1
        found = next(self._looks)
        if isinstance(found, OSError):
            raise found
        return {"workers": {name: {"name": name, "resources": has} for name, has in found.items()}}

    def wait_for(self, looks: int) -> None:
        """Wait until so many looks are over."""
        end = time.monotonic() + 60
        while self.looked <= looks:  # the next one has begun
            assert time.monotonic() < end
            time.sleep(0.001)


class FakeCluster:
    """A batch system with jobs of one worker or more, which may refuse what it is asked so many times.

    A job that takes the place of another has its name.
    """

    def __init__(self, jobs: dict[str, dict[str, Any]], refusals: int = 0) -> None:
        self.jobs = jobs
        self.worker_spec = dict(jobs)
        self.workers: dict[str, Any] = {}
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
        self.worker_spec = dict(self.jobs)


def watches() -> list[threading.Thread]:
    """Return the threads that look at workers."""
    return [thread for thread in threading.enumerate() if thread.name == "attendance"]


gave_up = partial(pytest.fail, "gave up")


def test_the_first_worker_is_awaited_and_the_wait_is_told_once(clock: FakeTime) -> None:
    messages: list[float] = []
    waited = Attendance(limit=None, say=lambda text: messages.append(clock.now))
    waited.await_first(FakeClient(*[{}] * 1000, {"a": {}}, clock=clock, step=0.0))
    assert messages == [pytest.approx(REPORT_AFTER, abs=2 * SOON)]
    assert clock.now == pytest.approx(1000 * SOON)
    waited.await_first(FakeClient({"a": {}}))
    assert len(messages) == 1


def test_nobody_within_the_limit_is_one_line(clock: FakeTime) -> None:
    messages: list[str] = []
    with pytest.raises(ClusterError) as caught:
        Attendance(limit=60, say=messages.append).await_first(
            FakeClient({"a": {"CPU": 1}}, clock=clock, step=0.0), "GPU"
        )
    what = "worker with the resource GPU"
    assert str(caught.value).startswith(f"cluster.worker_timeout: expected a {what} within 60 s, found none; start one")
    assert messages == [f"waiting for a {what}, at most 60 s"]
    assert clock.now == pytest.approx(60, abs=2 * SOON)


def test_who_waits_for_workers_that_left_is_released(clock: FakeTime) -> None:
    released = threading.Event()
    client = FakeClient({"a": {}}, {}, clock=clock)
    with (
        pytest.raises(ClusterError, match=r"expected a worker within 60 s, found none"),
        Attendance(limit=60).watching(client, None, released.set),
    ):
        assert released.wait(60)
    assert clock.now == STEP + 60  # counted from the first look, which saw one
    assert not watches()


def test_workers_that_come_back_in_time_are_enough(clock: FakeTime) -> None:
    client = FakeClient({"a": {}}, *[{}] * 5, {"a": {}}, clock=clock)
    with Attendance(limit=5 * STEP + 1).watching(client, None, gave_up):
        assert len(watches()) == 1
        client.wait_for(30)
    assert not watches()


def test_a_scheduler_that_is_away_is_no_missing_worker(clock: FakeTime) -> None:
    client = FakeClient(OSError("gone"), clock=clock)
    with Attendance(limit=2 * STEP).watching(client, None, gave_up):
        client.wait_for(30)


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
    jobs: dict[str, dict[str, Any]], looks: list[str], ended: list[str], clock: FakeTime
) -> None:
    everybody = [f"{job}{part}" for job, spec in jobs.items() if job != "job-2" for part in spec.get("group", [""])]
    cluster = FakeCluster(jobs)
    client = FakeClient({name: {} for name in everybody}, {name: {} for name in looks}, clock=clock)
    with Attendance(cluster, 2, 1000).watching(client, None, gave_up):
        client.wait_for(30)
    assert cluster.ended == ended  # once
    assert cluster.asked == {2}


def test_a_worker_that_its_nanny_starts_anew_is_not_replaced(clock: FakeTime) -> None:
    cluster = FakeCluster({"job-0": {}, "job-1": {}})
    both: Look = {"job-0": {}, "job-1": {}}
    away: list[Look] = [{"job-1": {}}] * (int(LEFT / STEP) - 1)
    client = FakeClient(both, *away, both, *away, both, clock=clock)
    with Attendance(cluster, 2, 30).watching(client, None, gave_up):
        client.wait_for(30)
    assert not cluster.ended


def test_nothing_is_asked_of_a_batch_system_while_everybody_is_there(clock: FakeTime) -> None:
    cluster = FakeCluster({"job-0": {}, "job-1": {}})
    client = FakeClient({"job-0": {}, "job-1": {}}, clock=clock)
    with Attendance(cluster, 2, 30).watching(client, None, gave_up):
        client.wait_for(30)
    assert not cluster.asked
    assert not cluster.ended


def test_a_job_that_ends_between_two_waits_is_asked_for_again(clock: FakeTime) -> None:
    cluster = FakeCluster({"job-0": {}, "job-1": {}})
    attendance = Attendance(cluster, 2, 30)
    attendance.await_first(FakeClient({"job-0": {}, "job-1": {}}))
    clock.sleep(LEFT)
    client = FakeClient({"job-1": {}}, clock=clock)
    with attendance.watching(client, None, gave_up):
        client.wait_for(1)
    assert cluster.ended == ["job-0"]


def test_a_batch_system_that_refuses_is_told_once_and_asked_again(clock: FakeTime) -> None:
    messages: list[str] = []
    cluster = FakeCluster({"job-0": {}, "job-1": {}}, refusals=3)
    client = FakeClient({"job-0": {}, "job-1": {}}, {"job-1": {}}, clock=clock)
    with Attendance(cluster, 2, 30, messages.append).watching(client, None, gave_up):
        client.wait_for(30)
    assert messages == [
        "the batch system refused a new job for now: slurm_load_jobs error: Unable to contact slurm controller"
    ]
    assert cluster.ended == ["job-0"]
    assert cluster.asked == {2}


def test_a_job_that_ended_before_its_worker_joined_is_asked_for_again(
    clock: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that waits stays; one that never joins is asked for a few times, then left."""
    monkeypatch.setattr(attendance, "jobs_not_queued", lambda cluster: {"job-0", "job-1"})
    jobs: dict[str, dict[str, Any]] = {"job-0": {}, "job-1": {"group": ["-0", "-1"]}, "job-2": {}}
    cluster = FakeCluster(jobs)
    client = FakeClient({"job-0": {}}, clock=clock)
    with Attendance(cluster, 2, 1000).watching(client, None, gave_up):
        client.wait_for(100)
    assert cluster.ended == ["job-1-0", "job-1-1"] * attendance.TRIES * 2
    assert cluster.asked == {2}


def test_the_queue_is_asked_for_jobs_of_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of other systems, jobs that were not accepted, and a system that does not answer: none has ended."""
    program = tmp_path / "squeue"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\necho 7\necho 12\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def job(number: object, cancel: str = "scancel") -> SimpleNamespace:
        return SimpleNamespace(job_id=number, cancel_command=cancel)

    workers = {"a": job("7"), "b": job("71"), 3: job(12), "d": job(None), "e": job("9", "qdel"), "f": object()}
    assert jobs_not_queued(SimpleNamespace(workers=workers)) == {"b"}
    assert f"--user {getpass.getuser()}" in (tmp_path / "asked").read_text()
    program.write_text("#!/bin/sh\nexit 1\n")
    assert jobs_not_queued(SimpleNamespace(workers=workers)) == set()
    program.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert jobs_not_queued(SimpleNamespace(workers=workers)) == set()
