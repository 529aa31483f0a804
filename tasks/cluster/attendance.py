"""Workers that go away under a run: their absence is told, and those of a batch system are asked for again."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tasks.cluster.rejoining import ClusterError

SOON, LOOK = 0.1, 5.0  # seconds between two looks, before the first worker is there and later
TELL = 30.0  # seconds without a worker after which a line says so
LEAVE = 2.0  # seconds for a look to end once nobody waits any more
LEFT = 20.0  # seconds after which a worker is gone for good: by then its nanny would have started it anew


def _quiet(text: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class Attendance:
    """What is done about workers that are not there.

    Parameters
    ----------
    cluster : the Dask cluster that the run started, whose jobs are replaced; None where others see to the workers
    workers : as many as the cluster shall have
    limit : seconds without any worker after which a run ends; None: never
    say : is told, in a line, that a run waits for workers
    seen : when each worker was there last, by name; one that left between two waits is missed in the next
    """

    cluster: Any = None  # Any: distributed has no types
    workers: int = 1
    limit: float | None = 300.0
    say: Callable[[str], None] = _quiet
    seen: dict[object, float] = field(default_factory=dict)

    def await_first(self, client: Any, resource: str | None = None) -> None:  # Any: distributed has no types
        """Return once a worker is there; ClusterError if none comes within the limit."""
        watch = _Watch(self, client, resource)
        while not watch.look():
            if watch.over:
                raise watch.error()
            time.sleep(SOON)

    @contextmanager
    def watching(self, client: Any, resource: str | None, give_up: Callable[[], object]) -> Iterator[None]:
        """Look at the workers from a thread while the block waits for them; one that gave up ends in a ClusterError."""
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
            thread.join(LEAVE)  # a batch system that does not answer its look holds nobody up
        if gave_up.is_set():
            raise watch.error()


@dataclass
class _Watch:
    """What one wait has seen so far."""

    attendance: Attendance
    client: Any  # Any: distributed has no types
    resource: str | None
    since: float = field(default_factory=time.monotonic)  # when there was one last
    told: bool = False  # that there is none
    refused: bool = False  # that a job was not taken

    @property
    def what(self) -> str:
        """What is waited for."""
        return f"worker with the resource {self.resource}" if self.resource else "worker"

    @property
    def over(self) -> bool:
        """Say whether the limit has passed."""
        limit = self.attendance.limit
        return limit is not None and time.monotonic() - self.since >= limit

    def error(self) -> ClusterError:
        """Return why the run ends."""
        return ClusterError(
            f"no {self.what} for {self.attendance.limit:g} s (cluster.worker_timeout); "
            "nothing is lost: start one and run again"
        )

    def look(self) -> bool:
        """Look who is there, act on it, and say whether anybody is."""
        try:
            workers = list(self.client.scheduler_info(n_workers=-1)["workers"].values())
        except Exception:  # the scheduler is away: the client looks for it by itself, and says if it gives up
            self.since = time.monotonic()
            return False
        now = time.monotonic()
        self.attendance.seen.update({worker["name"]: now for worker in workers})
        self._replace(now, missing=len(workers) < self.attendance.workers)
        if any(self.resource is None or worker["resources"].get(self.resource, 0) >= 1 for worker in workers):
            self.since, self.told = now, False
            return True
        if now - self.since >= TELL and not self.told:
            self.told = True
            limit = "" if self.attendance.limit is None else f", at most {self.attendance.limit:g} s"
            self.attendance.say(f"waiting for a {self.what}{limit}")
        return False

    def _replace(self, now: float, *, missing: bool) -> None:
        """Ask a batch system for other jobs in place of those that were there and have ended, or were not taken."""
        cluster, seen = self.attendance.cluster, self.attendance.seen
        if not missing or not hasattr(cluster, "worker_spec"):  # of distributed.SpecCluster; others do it themselves
            return
        gone = {name for name, last in seen.items() if now - last >= LEFT}
        ended = [name for names in _jobs(cluster) if gone.issuperset(names) for name in names]
        try:
            if ended:
                cluster.sync(cluster.scale_down, ended)  # Dask would count the jobs that have ended
            for name in ended:
                del seen[name]
            cluster.scale(self.attendance.workers)  # asks for what it lacks, and leaves the queue alone
        except Exception as error:  # whatever the batch system says: it may take the job at a later look
            if not self.refused:
                self.attendance.say(f"a job that ended is not replaced yet: {' '.join(str(error).split())}")
            self.refused = True


def _jobs(cluster: Any) -> list[list[object]]:  # Any: distributed has no types
    """Return the names of the workers of each job that a cluster counts."""
    jobs = cluster.worker_spec.items()
    return [[f"{name}{part}" for part in spec.get("group", ())] or [name] for name, spec in jobs]
