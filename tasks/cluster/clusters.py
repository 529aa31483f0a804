"""Dask clusters: checks of their settings, and how a run starts or joins one."""

import difflib
import importlib
import inspect
import logging
import re
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from configs.cluster import UNSHELTERED, Cluster, is_sheltered
from tasks.cluster.rejoining import ClusterError

LOCAL = ("local", "threads")  # kinds that are distributed.LocalCluster
REFUSED = "Command exited with non-zero exit code"  # of dask-jobqueue's error; the program's own errors follow
LEAVE = 2.0  # seconds for a client or cluster to close after the run was stopped
SCHEMES = ("tcp", "tls", "ws", "wss")  # of addresses at which another process can listen


def check_cluster(cluster: Cluster) -> None:
    """Raise ClusterError where a cluster's class cannot be imported or does not fit its settings."""
    if cluster.kind == "address":
        join_settings(cluster)
    elif cluster.kind != "serial" and (cluster.arguments or cluster.kind not in LOCAL):  # Dask takes long to import
        _check_arguments(cluster.kind, cluster.arguments)
    declared = cluster.arguments.get("resources") if cluster.kind != "serial" else None
    unknown = cluster.gpu_resource not in (None, *(declared if isinstance(declared, dict) else ()))
    if unknown and cluster.kind in ("serial", *LOCAL):
        raise ClusterError(
            f"cluster.gpu_resource: expected none with kind {cluster.kind}, found {cluster.gpu_resource!r}"
        )


def join_settings(cluster: Cluster) -> Any:  # Any: distributed has no types
    """Return the TLS settings for a running scheduler; ClusterError where a file is missing or cannot be read."""
    from distributed import Security

    scheme, _, place = str(cluster.address).rpartition("://")
    if scheme not in SCHEMES or not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^\[\]:/]+):\d{1,5}", place):
        raise ClusterError(
            f"cluster.address: expected a tcp, tls, ws or wss address with host and port, found {cluster.address!r}"
        )
    _refuse_unknown({*cluster.arguments} - {*Security.__slots__}, Security.__slots__, "distributed.Security")
    for name, value in cluster.arguments.items():
        if name.endswith(("_file", "_cert", "_key")) and not (isinstance(value, str) and Path(value).is_file()):
            raise ClusterError(f"cluster.arguments.{name}: expected a file, found none at {value!r}")
    try:
        security = Security(**cluster.arguments)
        encrypted = security.get_connection_args("client").get("ssl_context") is not None
    except (OSError, ValueError, TypeError, RuntimeError) as error:  # ssl's own among them
        raise ClusterError(f"cluster.arguments: {error}") from error
    if scheme in ("tls", "wss") and not encrypted:
        needed = "tls_ca_file, tls_client_cert and tls_client_key"
        raise ClusterError(f"cluster.arguments: expected {needed} for a {scheme}:// address, found none; add them")
    return security


@contextmanager
def interrupts_stay_here() -> Iterator[None]:
    """Hide Ctrl-C, which a terminal sends to all processes, from threads and processes started in the block.

    They inherit the mask of blocked signals. A signal during the block arrives at its end.
    """
    resource_tracker.ensure_running()  # multiprocessing lifts the mask when it starts this one
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def open_scheduler(
    cluster: Cluster, libraries: Sequence[str] = ()
) -> Iterator[tuple[Any, Any]]:  # Any: distributed has no types
    """Yield the address or cluster for a client, and the TLS settings; workers of kind `local` load libraries."""
    if cluster.kind == "address":
        yield cluster.address, join_settings(cluster)
        return
    with interrupts_stay_here():
        entered = _cluster_class(cluster.kind)(**_cluster_arguments(cluster, libraries))
    with closing_in_time(entered):
        if not (cluster.insecure or is_sheltered(entered.scheduler_address)):
            raise ClusterError(
                "cluster.arguments: expected a scheduler on this machine or with TLS, "
                f"found one at {entered.scheduler_address}; {UNSHELTERED}"
            )
        if cluster.kind not in LOCAL and "n_workers" not in cluster.arguments:
            entered.scale(cluster.workers)
        yield entered, None


class _Refusals(logging.Filter):
    """Report each reason for which a batch system refuses jobs once, in place of Dask's traceback.

    Dask submits jobs in a callback, so that the error of a refused one reaches nothing but a log.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say, self._said = say, set[str]()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is of something else."""
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, RuntimeError) or REFUSED not in str(error):
            return True
        reason = str(error).strip().splitlines()[-1].strip()
        if reason not in self._said:
            self._said.add(reason)
            self._say(f"the batch system refused a job: {reason}")
        return False


@contextmanager
def reporting_refusals(say: Callable[[str], None]) -> Iterator[None]:
    """Report the jobs that a batch system refuses in the block, by lines."""
    logger, found = logging.getLogger("tornado.application"), _Refusals(say)
    logger.addFilter(found)
    try:
        yield
    finally:
        logger.removeFilter(found)


@contextmanager
def closing_in_time(opened: Any) -> Iterator[None]:  # Any: distributed has no types
    """Close a client or cluster after the block; after a stop, do so for at most `LEAVE` seconds.

    A batch system or a scheduler that does not answer must not delay a stopped run.
    """
    try:
        yield
    except Exception:
        _close(opened)
        raise
    except BaseException:  # Ctrl-C, or Prefect's own signal
        opened.shutdown_on_close = False  # nor does Dask try again when Python ends
        close_in_time(opened)
        raise
    _close(opened)


def _close(opened: Any) -> None:  # Any: distributed has no types
    """Close a client or cluster; Dask asserts that every job had begun, which one that was refused had not."""
    with suppress(AssertionError):
        opened.close()


def close_in_time(opened: Any) -> None:  # Any: distributed has no types
    """Close a client or cluster; one that does not close in time is left, and Dask does not try again for a minute."""
    try:
        opened.close(timeout=LEAVE)
    except TimeoutError:
        with suppress(Exception):  # a client tries again when it is collected, unless it is closed
            opened.status = "closed"


def _cluster_arguments(cluster: Cluster, libraries: Sequence[str]) -> dict[str, Any]:  # Any: the class's own
    """Return the keyword arguments of the cluster's class."""
    processes = cluster.kind == "local"
    if not processes and cluster.kind != "threads":
        return dict(cluster.arguments)
    return {
        "processes": processes,
        "n_workers": cluster.workers if processes else 1,
        "threads_per_worker": 1 if processes else cluster.workers,
        "memory_limit": cluster.memory_limit if processes else 0,
        "dashboard_address": "127.0.0.1:0",  # None would mean port 8787, with a warning where that is in use
        "scheduler_kwargs": {"dashboard": has_dashboard()},
        # threads talk within the process, which loads what it needs
        **({"host": "127.0.0.1", **_preloads(libraries)} if processes else {}),
        "silence_logs": logging.CRITICAL,
        **cluster.arguments,
    }


def _preloads(libraries: Sequence[str]) -> dict[str, list[Any]]:  # Any: Dask's own arguments of a module
    """Return the modules that workers load, those of Dask's own settings too, and their arguments."""
    import dask

    own, arguments = (dask.config.get(f"distributed.worker.{key}") for key in ("preload", "preload-argv"))
    if arguments and isinstance(arguments[0], list):  # else they are for each module
        arguments = [*([] for _ in libraries), *arguments]
    return {"preload": [*libraries, *own], "preload_argv": list(arguments)}


def has_dashboard() -> bool:
    """Say whether Dask's dashboard can be shown: it needs bokeh, the extra `dashboard`."""
    return find_spec("bokeh") is not None


def _cluster_class(kind: str) -> Any:  # Any: distributed has no types
    """Return the cluster class of a kind or import path."""
    module, _, name = ("distributed.LocalCluster" if kind in LOCAL else kind).rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ClusterError(f"cluster.kind: expected an import path, found {kind}: {error}") from error
    if not isinstance(found, type) or not hasattr(found, "scale"):
        raise ClusterError(f"cluster.kind: expected a class of Dask clusters, found {kind}")
    return found


def _check_arguments(kind: str, arguments: Mapping[str, Any]) -> None:  # Any: the class's own
    """Raise ClusterError for an argument that neither the cluster class nor its workers take."""
    takers = [_cluster_class(kind)]
    if kind in LOCAL:
        from distributed import Nanny, Worker

        takers += [Worker, Nanny] if kind == "local" else [Worker]
    known = [p for taker in takers for p in inspect.signature(taker).parameters.values()]
    names = [p.name for p in known if p.kind is not p.VAR_KEYWORD]
    if kind in LOCAL or len(names) == len(known):
        _refuse_unknown({*arguments} - {*names}, names, takers[0].__name__)


def _refuse_unknown(unknown: set[str], names: Iterable[str], taker: str) -> None:
    """Raise ClusterError for the first unknown argument, with the nearest known one."""
    if unknown:
        first = min(unknown)
        near = difflib.get_close_matches(first, sorted({*names}), 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ClusterError(f"cluster.arguments.{first}: expected an argument of {taker}, found an unknown one{hint}")
