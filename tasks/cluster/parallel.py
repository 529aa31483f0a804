"""The spread of partitions over workers. Only this folder knows Dask.

A partition is a plain function of one item that returns a few numbers. A failed partition does not stop the others.
"""

import contextlib
import ctypes
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from threading import Event
from typing import Any, Protocol, TypeVar

import threadpoolctl

from configs.cluster import Cluster
from configs.imports import behind, put_behind
from tasks.cluster.attendance import Attendance
from tasks.cluster.clusters import (
    LOCAL,
    close_in_time,
    closing_in_time,
    has_dashboard,
    open_scheduler,
    reporting_refusals,
)
from tasks.cluster.forking import forked_workers
from tasks.cluster.rejoining import PATIENCE, ClusterError, fetched, rejoin
from tasks.cluster.versions import code_difference, code_facts

Item = TypeVar("Item")
Result = TypeVar("Result")

ATTEMPTS = 2
PASSING = (TimeoutError, ConnectionError)  # temporary faults
MALLOPT = {"arenas": (-8, 1), "map from": (-3, 2**30), "trim from": (-1, 2**30), "top pad": (-2, 2**26)}  # malloc.h


class PartitionError(Exception):
    """Partitions failed; the text names the first one and its cause, which is chained."""


class Pool(Protocol):
    """A pool of workers that runs a function over items."""

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item], *, network: bool = False
    ) -> Iterator[tuple[Item, Result]]:
        """Yield (item, result) as partitions end, in any order; PartitionError after the last one, if any failed.

        `network`: the function runs a network and needs the cluster's GPU resource.
        """
        ...

    def release(self) -> None:
        """Let the workers that this process started end, since probably no item follows; else they start again."""
        ...


class SerialPool:
    """One partition after the other, in this process, without Dask."""

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item], *, network: bool = False
    ) -> Iterator[tuple[Item, Result]]:
        failures: list[tuple[Item, Exception]] = []
        for item in items:
            try:
                result = _attempt(function, item)
            except Exception as error:
                failures.append((item, error))
                continue
            yield item, result
        _raise_first(failures, len(items))

    def release(self) -> None:
        """Do nothing: there are no workers."""


@dataclass(frozen=True)
class DaskPool:
    """Partitions as Dask tasks of one client; `own` is the cluster of worker processes that this process started."""

    client: Any  # Any: distributed has no types
    gpu_resource: str | None = None
    attendance: Attendance = field(default_factory=Attendance)
    own: Any = None  # Any: distributed has no types
    released: Event = field(default_factory=Event)

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item], *, network: bool = False
    ) -> Iterator[tuple[Item, Result]]:
        from distributed import as_completed

        if not items:
            return
        if self.released.is_set():
            self._scale(self.attendance.workers)
            self.released.clear()
        wanted = self.gpu_resource if network else None
        if rejoin(self.client):
            self.attendance.await_first(self.client, wanted)
        if wanted:
            self._await_resource(wanted)
        attempt = partial(_attempt_on_worker, function, ours=code_facts())
        futures = self.client.map(attempt, items, resources={wanted: 1} if wanted else None, pure=False)
        by_key = {future.key: item for future, item in zip(futures, items, strict=True)}
        failures: list[tuple[Item, Exception]] = []
        try:
            with self.attendance.watching(self.client, wanted, partial(self.client.cancel, futures)):
                for future in (completed := as_completed(futures, loop=self.client.loop)):
                    if future.status == "lost":  # its worker left before we looked: the scheduler has it made again
                        completed.add(future)
                        continue
                    item = by_key[future.key]
                    try:
                        result = fetched(future)
                    except Exception as error:
                        failures.append((item, error))
                    else:
                        yield item, result
                    future.release()
        finally:
            if open_still := [future for future in futures if not future.done()]:
                self.client.cancel(open_still)
        order = {id(item): number for number, item in enumerate(items)}
        _raise_first(sorted(failures, key=lambda failure: order[id(failure[0])]), len(items))

    def release(self) -> None:
        """Let own workers end; those of others, and jobs of a batch system, stay until the pool is closed."""
        if self.own is not None and not self.released.is_set():
            self.released.set()
            self._scale(0)

    def _scale(self, workers: int) -> None:
        """Ask for a number of own workers, without waiting for them."""
        self.own.loop.add_callback(self.own.scale, workers)  # in the thread that changes what it reads

    def _await_resource(self, wanted: str) -> None:
        """Return once a worker declares the GPU resource; ClusterError where all workers are there and none does."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        declared = any(worker["resources"].get(wanted, 0) >= 1 for worker in workers)
        queued = self.attendance.cluster is not None and len(workers) < self.attendance.workers
        if workers and not declared and not queued:
            raise ClusterError(
                f"cluster.gpu_resource: expected a worker with {wanted!r}, found {len(workers)} workers without it; "
                f"start them with --resources {wanted}=1"
            )
        self.attendance.await_first(self.client, wanted)


@contextmanager
def open_pool(cluster: Cluster, say: Callable[[str], None] = print, *, libraries: Sequence[str] = ()) -> Iterator[Pool]:
    """Start or join the workers that `cluster` describes, and stop those it started.

    Parameters
    ----------
    say : gets lines of long waits
    libraries : modules that workers of kind `local` load as they start

    Raises
    ------
    ClusterError : no scheduler answers, a class cannot be imported, or workers run other code than this process
    """
    with threadpoolctl.threadpool_limits(1):  # restores the setting of this process at the end
        if cluster.kind == "serial":
            yield SerialPool()
        else:
            yield from _dask_pool(cluster, say, libraries)


def _dask_pool(cluster: Cluster, say: Callable[[str], None], libraries: Sequence[str]) -> Iterator[Pool]:
    """Yield a pool of Dask workers."""
    from distributed import Client

    for name in ("distributed", "distributed.client"):  # Dask gives the latter its own level
        logging.getLogger(name).setLevel(logging.CRITICAL)  # the caller reports a failure in one line

    with forked_workers(), reporting_refusals(say), open_scheduler(cluster, libraries) as (address, security):
        before = set(Client._instances)
        try:
            client = Client(**_connection(address, security), set_as_default=False, timeout=PATIENCE)
        except OSError as error:
            raise ClusterError(
                f"cluster.address: expected a scheduler at {cluster.address}, found none: {error}"
            ) from error
        except KeyboardInterrupt:  # the client is half made: nothing but Dask knows it
            for half in set(Client._instances) - before:
                close_in_time(half)
            raise
        ours = None if cluster.kind in (*LOCAL, "address") else address
        workers = cluster.arguments.get("n_workers", cluster.workers)
        attendance = Attendance(ours, workers, cluster.worker_timeout, say)
        with closing_in_time(client):
            if cluster.kind not in LOCAL:
                attendance.await_first(client)
                compare_workers(client.run(code_facts, on_error="return"))
            if cluster.kind == "address" or has_dashboard():
                say(f"Dask: {client.dashboard_link}")
            if folders := behind():
                client.register_worker_callbacks(partial(put_behind, folders))
            yield DaskPool(client, cluster.gpu_resource, attendance, address if cluster.kind == "local" else None)


def _connection(address: Any, security: Any) -> dict[str, Any]:  # Any: distributed has no types
    """Return the arguments with which a client reaches a scheduler without a wait for a cluster's jobs."""
    if isinstance(address, str):
        return {"address": address, "security": security}
    return {"address": address.scheduler_address, "security": address.security, "loop": address.loop}


def compare_workers(answers: Mapping[str, Any]) -> None:  # Any: a worker's answer, or its error
    """Raise ClusterError if the code of a worker differs from this process's or is missing."""
    for worker, answer in answers.items():
        if isinstance(answer, OSError):  # it has left since; each partition compares the worker that replaces it
            continue
        if not isinstance(answer, dict):
            raise ClusterError(
                f"worker {worker}: expected layerlore, found {answer}; install layerlore there and restart the worker"
            )
        if difference := code_difference(worker, answer, code_facts()):
            raise ClusterError(difference)


def _attempt_on_worker(function: Callable[[Item], Result], item: Item, ours: dict[str, str]) -> Result:
    """Call `function` on a Dask worker that runs the same code as the run; a worker may have joined just now."""
    from distributed import get_worker

    if difference := code_difference(get_worker().address, code_facts(), ours):
        raise ClusterError(difference)
    return _attempt(function, item)


def _attempt(function: Callable[[Item], Result], item: Item) -> Result:
    """Call `function` with one BLAS thread; call it once more after a temporary fault of a disk or network."""
    # Not as a context: its end in one thread would lift the limit for all threads.
    _thread_pools(len(sys.modules)).limit(limits=1)
    keep_freed_memory()
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return function(item)
        except PASSING:
            if attempt == ATTEMPTS:
                raise
    raise AssertionError


@lru_cache(maxsize=1)
def _thread_pools(modules: int) -> Any:  # Any: threadpoolctl has no types
    """Return the thread pools of loaded libraries, cached by the number of modules: the search takes 6 ms."""
    return threadpoolctl.ThreadpoolController()


@lru_cache(maxsize=1)
def keep_freed_memory() -> None:
    """Let this process reuse freed memory instead of returning it to the system, where glibc is its allocator.

    Dask starts workers with a trim threshold of 64 kB, and glibc maps every large array again. Each forward pass then
    faults its activations in page by page, at the cost of their computation. The peak memory stays the same.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in MALLOPT.values():
            mallopt(parameter, value)


def _raise_first(failures: list[tuple[Item, Exception]], n_items: int) -> None:
    """Raise PartitionError for the first failure, if there is one."""
    if failures:
        item, error = failures[0]
        text = str(error) or type(error).__name__
        more = f" ({len(failures)} of {n_items} partitions failed)" if len(failures) > 1 else ""
        raise PartitionError(f"partition {item}: {text}{more}") from error
