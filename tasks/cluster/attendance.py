"""Workers that disappear during a run: this module reports their absence and asks a batch system for new ones."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tasks.cluster.queued import jobs_not_queued
from tasks.cluster.rejoining import ClusterError

SOON, LOOK = 0.1, 5.0  # seconds between two looks, before the first worker is there and later
REPORT_AFTER = 30.0  # seconds without a worker after which a line reports it
LEAVE = 2.0  # seconds for a look to end after the wait
LEFT = 20.0  # seconds after which a worker is lost: its nanny would have restarted it by then
TRIES = 3  # times that each job may end before its worker joins: more often it is at fault itself


def _quiet(text: str) -> None:
    """Ignore a line."""


@dataclass(frozen=True)
class Attendance:
    """The watch over the workers of a run, and the response to missing ones.

    Parameters
    ----------
    cluster : the Dask cluster that the run started, whose jobs are replaced; None for a cluster of others
    workers : number of workers that the cluster should have
    limit : seconds without any worker after which a run ends; None: never
    say : gets a line when a run waits for workers
    seen : time of the last sight of each worker, by name; the next wait notices a worker that left between two waits
    unseen : jobs that ended before their worker joined and were replaced
    """

    cluster: Any = None  # Any: distributed has no types
    workers: int = 1
    limit: float | None = 300.0
    say: Callable[[str], None] = _quiet
    seen: dict[object, float] = field(default_factory=dict)
    unseen: list[object] = field(default_factory=list)

    def await_first(self, client: Any, resource: str | None = None) -> None:  # Any: distributed has no types
        """Return once a worker is there; ClusterError if none comes within the limit."""
        watch = _Watch(self, client, resource)
        while not watch.look():
            if watch.over:
                raise watch.error()
            time.sleep(SOON)

    @contextmanager
    def watching(self, client: Any, resource: str | None, give_up: Callable[[], object]) -> Iterator[None]:
        """Watch the workers from a thread while the block waits for them; ClusterError after the limit."""
        watch, stop, gave_up = _Watch(self, client, resource), threading.Event(), threading.Event()

        def looking() -> None:
            while not stop.wait(LOOK):
                watch.look()
                if watch.over:
                    gave_up.set()
                    give_up()
                    return

        thread = threading.Thread(target=looking, name="attendance", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(LEAVE)  # do not wait for a batch system that does not answer
        if gave_up.is_set():
            raise watch.error()


@dataclass
class _Watch:
    """The observations of one wait."""

    attendance: Attendance
    client: Any  # Any: distributed has no types
    resource: str | None
    since: float = field(default_factory=time.monotonic)  # time of the last worker
    reported: bool = False  # a line has reported that there is none
    refused: bool = False  # a line has reported that a job was refused
    asked: float = float("-inf")  # time of the last question about the queue

    @property
    def what(self) -> str:
        """The kind of worker that the run needs."""
        return f"worker with the resource {self.resource}" if self.resource else "worker"

    @property
    def over(self) -> bool:
        """Say whether the limit has passed."""
        limit = self.attendance.limit
        return limit is not None and time.monotonic() - self.since >= limit

    def error(self) -> ClusterError:
        """Return the error that ends the run."""
        return ClusterError(
            f"cluster.worker_timeout: expected a {self.what} within {self.attendance.limit:g} s, found none; "
            "start one and run again: no result is lost"
        )

    def look(self) -> bool:
        """Look for workers, report or replace missing ones, and say whether there is any."""
        try:
            workers = list(self.client.scheduler_info(n_workers=-1)["workers"].values())
        except Exception:  # the scheduler is lost: the client looks for it, and raises when it gives up
            self.since = time.monotonic()
            return False
        now = time.monotonic()
        self.attendance.seen.update({worker["name"]: now for worker in workers})
        self._replace(now, missing=len(workers) < self.attendance.workers)
        if any(self.resource is None or worker["resources"].get(self.resource, 0) >= 1 for worker in workers):
            self.since, self.reported = now, False
            return True
        if now - self.since >= REPORT_AFTER and not self.reported:
            self.reported = True
            limit = "" if self.attendance.limit is None else f", at most {self.attendance.limit:g} s"
            self.attendance.say(f"waiting for a {self.what}{limit}")
        return False

    def _replace(self, now: float, *, missing: bool) -> None:
        """Ask a batch system for new jobs in place of jobs that have ended or were refused."""
        cluster, seen = self.attendance.cluster, self.attendance.seen
        if not missing or not hasattr(
            cluster, "worker_spec"
        ):  # of distributed.SpecCluster; other classes replace jobs themselves
            return
        jobs = _jobs(cluster)
        gone = {name for name, last in seen.items() if now - last >= LEFT}
        try:
            unseen = self._ended_unseen(now, jobs)
            ended = [name for job, names in jobs.items() if job in unseen or gone.issuperset(names) for name in names]
            if ended:
                cluster.sync(cluster.scale_down, ended)  # Dask would count the jobs that have ended
            for name in ended:
                seen.pop(name, None)
            self.attendance.unseen.extend(unseen)
            cluster.scale(self.attendance.workers)  # asks for missing jobs only, and keeps queued ones
        except Exception as error:  # any error of the batch system: it may accept the job later
            if not self.refused:
                self.attendance.say(f"the batch system refused a new job for now: {' '.join(str(error).split())}")
            self.refused = True

    def _ended_unseen(self, now: float, jobs: dict[object, list[object]]) -> list[object]:
        """Return the jobs that have left the queue and of which no worker has joined."""
        attendance = self.attendance
        if now - self.asked < LEFT or len(attendance.unseen) >= TRIES * attendance.workers:
            return []
        self.asked = now
        ended = jobs_not_queued(attendance.cluster)
        return [job for job, names in jobs.items() if job in ended and attendance.seen.keys().isdisjoint(names)]


def _jobs(cluster: Any) -> dict[object, list[object]]:  # Any: distributed has no types
    """Return the names of the workers of each job of a cluster, by the job's name."""
    jobs = cluster.worker_spec.items()
    return {name: [f"{name}{part}" for part in spec.get("group", ())] or [name] for name, spec in jobs}
