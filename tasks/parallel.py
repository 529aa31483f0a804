"""How partitions are spread over workers: the only file that knows Dask.

A partition is a plain function of one item; it returns a few numbers. Failures of some do not stop the others.
"""

import contextlib
import ctypes
import difflib
import importlib
import inspect
import logging
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing import resource_tracker
from typing import Any, Protocol, TypeVar

import threadpoolctl

from configs.cluster import UNSHELTERED, Cluster, is_sheltered
from tasks.versions import code_difference, code_facts

Item = TypeVar("Item")
Result = TypeVar("Result")

ATTEMPTS = 2
MALLOPT = {"arenas": (-8, 1), "map from": (-3, 2**30), "trim from": (-1, 2**30), "top pad": (-2, 2**26)}  # malloc.h
LOCAL = ("local", "threads")  # kinds that are distributed.LocalCluster


class PartitionError(Exception):
    """Partitions failed; the text has the first one's coordinates and its cause, which is chained."""


class ClusterError(Exception):
    """A cluster cannot be used; one line says why."""


class Pool(Protocol):
    """Runs a function over items."""

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item], *, network: bool = False
    ) -> Iterator[tuple[Item, Result]]:
        """Yield (item, result) as partitions end, in any order; PartitionError after the last, if some failed.

        `network`: the function runs a network, so it asks for the cluster's GPU resource.
        """
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


@dataclass(frozen=True)
class DaskPool:
    """Partitions as Dask tasks of one client."""

    client: Any  # Any: distributed has no types
    gpu_resource: str | None = None

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item], *, network: bool = False
    ) -> Iterator[tuple[Item, Result]]:
        from distributed import as_completed

        if not items:
            return

        resources = {self.gpu_resource: 1} if network and self.gpu_resource else None
        if resources:
            self._check_resource()
        attempt = partial(_attempt_on_worker, function, ours=code_facts())
        futures = self.client.map(attempt, items, resources=resources, pure=False)
        by_key = {future.key: item for future, item in zip(futures, items, strict=True)}
        failures: list[tuple[Item, Exception]] = []
        try:
            for future in as_completed(futures, loop=self.client.loop):
                if future.status == "finished":
                    yield by_key[future.key], future.result()
                else:
                    failures.append((by_key[future.key], _exception(future)))
                future.release()
        finally:
            self.client.cancel([future for future in futures if not future.done()])
        order = {id(item): number for number, item in enumerate(items)}
        _raise_first(sorted(failures, key=lambda failure: order[id(failure[0])]), len(items))

    def _check_resource(self) -> None:
        """Raise unless some worker declares the GPU resource."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        if not any(worker["resources"].get(self.gpu_resource, 0) >= 1 for worker in workers):
            raise ClusterError(
                f"cluster.gpu_resource: none of {len(workers)} workers declares {self.gpu_resource!r}; "
                f"start them with --resources {self.gpu_resource}=1"
            )


@contextmanager
def open_pool(cluster: Cluster) -> Iterator[Pool]:
    """Start or join the workers that `cluster` describes, and stop what was started.

    Raises
    ------
    ClusterError : no scheduler answers, a class cannot be imported, or workers run other code than this process
    """
    with threadpoolctl.threadpool_limits(1):  # restores this process's setting at the end
        if cluster.kind == "serial":
            yield SerialPool()
        else:
            yield from _dask_pool(cluster)


@contextmanager
def interrupts_stay_here() -> Iterator[None]:
    """Let threads and processes that start in the block never see Ctrl-C, which a terminal sends to all of them.

    They inherit the mask of blocked signals. One that comes meanwhile is taken at the end of the block.
    """
    resource_tracker.ensure_running()  # multiprocessing lifts the mask when it starts this one
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _dask_pool(cluster: Cluster) -> Iterator[Pool]:
    """Yield a pool of Dask workers."""
    from distributed import Client

    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # a failure is told in one line, by who asked

    with _scheduler(cluster) as (address, security):
        try:
            client = Client(address, security=security, set_as_default=False, timeout="30s")
        except OSError as error:
            raise ClusterError(f"cluster.address: no scheduler answers at {cluster.address}: {error}") from error
        with client:
            if cluster.kind not in LOCAL:
                client.wait_for_workers(1, timeout=300)
                compare_workers(client.run(code_facts, on_error="return"))
            yield DaskPool(client, cluster.gpu_resource)


def check_cluster(cluster: Cluster) -> None:
    """Raise ClusterError where a cluster's class cannot be imported, or it cannot give what is asked of it."""
    if cluster.kind not in ("serial", "address"):
        _check_arguments(cluster.kind, cluster.arguments)
    declared = cluster.arguments.get("resources") if cluster.kind != "serial" else None
    unknown = cluster.gpu_resource not in (None, *(declared if isinstance(declared, dict) else ()))
    if unknown and cluster.kind in ("serial", *LOCAL):
        raise ClusterError(f"cluster.gpu_resource: kind {cluster.kind} has no {cluster.gpu_resource!r}; leave it out")


def compare_workers(answers: Mapping[str, Any]) -> None:  # Any: what a worker says, or the error that it met
    """Raise ClusterError in one line if a worker's code differs from this process's, or it has none."""
    for worker, answer in answers.items():
        if not isinstance(answer, dict):
            raise ClusterError(f"worker {worker} cannot run layerlore: {answer}; install it there and start it anew")
        if difference := code_difference(worker, answer, code_facts()):
            raise ClusterError(difference)


@contextmanager
def _scheduler(cluster: Cluster) -> Iterator[tuple[Any, Any]]:  # Any: distributed has no types
    """Yield what a client connects to, and the TLS settings."""
    if cluster.kind == "address":
        from distributed import Security

        yield cluster.address, Security(**cluster.arguments) if cluster.arguments else None
        return
    with interrupts_stay_here():
        entered = _cluster_class(cluster.kind)(**_cluster_arguments(cluster))
    with entered as started:
        if not (cluster.insecure or is_sheltered(started.scheduler_address)):
            raise ClusterError(
                f"cluster.arguments: the scheduler listens at {started.scheduler_address}; {UNSHELTERED}"
            )
        if cluster.kind not in LOCAL and "n_workers" not in cluster.arguments:
            started.scale(cluster.workers)
        yield started, None


def _cluster_arguments(cluster: Cluster) -> dict[str, Any]:  # Any: the class's own
    """Return the keyword arguments of the cluster's class."""
    processes = cluster.kind == "local"
    if not processes and cluster.kind != "threads":
        return dict(cluster.arguments)
    return {
        "processes": processes,
        "n_workers": cluster.workers if processes else 1,
        "threads_per_worker": 1 if processes else cluster.workers,
        "memory_limit": cluster.memory_limit if processes else 0,
        "dashboard_address": "127.0.0.1:0",  # None would mean port 8787, with a warning where that is taken
        "scheduler_kwargs": {"dashboard": False},
        **({"host": "127.0.0.1"} if processes else {}),  # threads talk within the process
        "silence_logs": logging.CRITICAL,
        **cluster.arguments,
    }


def _cluster_class(kind: str) -> Any:  # Any: distributed has no types
    """Return the cluster class of a kind or import path."""
    module, _, name = ("distributed.LocalCluster" if kind in LOCAL else kind).rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ClusterError(f"cluster.kind: cannot import {kind}: {error}") from error
    if not isinstance(found, type) or not hasattr(found, "scale"):
        raise ClusterError(f"cluster.kind: {kind} is no class of Dask clusters")
    return found


def _check_arguments(kind: str, arguments: Mapping[str, Any]) -> None:  # Any: the class's own
    """Raise ClusterError for an argument that neither a cluster class takes nor the workers to which it hands it."""
    takers = [_cluster_class(kind)]
    if kind in LOCAL:
        from distributed import Nanny, Worker

        takers += [Worker, Nanny] if kind == "local" else [Worker]
    known = [p for taker in takers for p in inspect.signature(taker).parameters.values()]
    names = [p.name for p in known if p.kind is not p.VAR_KEYWORD]
    unknown = sorted({*arguments} - {*names}) if kind in LOCAL or len(names) == len(known) else ()
    if unknown:
        near = difflib.get_close_matches(unknown[0], sorted({*names}), 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ClusterError(f"cluster.arguments.{unknown[0]}: {takers[0].__name__} takes no such argument{hint}")


def _attempt_on_worker(function: Callable[[Item], Result], item: Item, ours: dict[str, str]) -> Result:
    """Call `function` on a Dask worker, unless that runs other code than the run: it may have joined a moment ago."""
    from distributed import get_worker

    if difference := code_difference(get_worker().address, code_facts(), ours):
        raise ClusterError(difference)
    return _attempt(function, item)


def _attempt(function: Callable[[Item], Result], item: Item) -> Result:
    """Call `function` with one BLAS thread; once more after a passing fault of a disk or network."""
    # Not as a context: leaving one in one thread would lift the limit under the others.
    threadpoolctl.threadpool_limits(1)
    keep_freed_memory()
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return function(item)
        except (TimeoutError, ConnectionError):
            if attempt == ATTEMPTS:
                raise
    raise AssertionError


@lru_cache(maxsize=1)
def keep_freed_memory() -> None:
    """Let this process reuse the memory it frees instead of handing it back at once, where glibc is its allocator.

    Dask starts workers with a trim threshold of 64 kB, and glibc maps every large array anew: each forward pass then
    faults its activations in page by page, which costs as much as computing them. The peak stays what it was.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in MALLOPT.values():
            mallopt(parameter, value)


def _exception(future: Any) -> Exception:  # Any: distributed has no types
    """Return why a future failed."""
    error = future.exception() if future.status == "error" else None
    if isinstance(error, Exception):
        return error
    return RuntimeError(f"its task was {future.status}")


def _raise_first(failures: list[tuple[Item, Exception]], n_items: int) -> None:
    """Raise PartitionError for the first failure, if there is one."""
    if failures:
        item, error = failures[0]
        text = str(error) or type(error).__name__
        more = f" ({len(failures)} of {n_items} partitions failed)" if len(failures) > 1 else ""
        raise PartitionError(f"partition {item}: {text}{more}") from error
