"""Steps as Prefect tasks: retries, timeout, run names, progress and result artifacts."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TagsContext
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger, handlers
from prefect.runtime import flow_run
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_SERVER_EPHEMERAL_ENABLED,
    temporary_settings,
)
from prefect.task_engine import TaskRunTimeoutError
from prefect.tasks import Task
from prefect.utilities.annotations import quote

from configs.load import ConfigError
from storage.specs import StageSpec
from storage.stages import open_finished
from tasks.cluster.parallel import PASSING, PartitionError
from tasks.engine.curves import CurveReader
from tasks.engine.life import Job, Observer, incomplete, make
from tasks.engine.reaching import optional, reaching_prefect
from tasks.engine.server import is_own_server, starting_server
from tasks.engine.step import Step

RETRIES = 2
RETRY_DELAYS = [2.0, 10.0]  # seconds
ARTIFACT_EVERY = 2.0  # seconds between two updates of a progress artifact
FIRST_ANSWER = 6.0  # seconds for the first answer of a standing server, which gets two requests


def start_prefect() -> None:
    """Reach Prefect's server; as `starting_prefect`, without anything meanwhile."""
    with starting_prefect() as answered:
        answered()


@contextmanager
def starting_prefect() -> Iterator[Callable[[], None]]:
    """Reach Prefect's standing server where one is configured, else start a server of this run.

    The block gets a function that waits for the server's first answer. Prefect must not be used before.

    Raises
    ------
    ServerError : it does not answer, or cannot start
    ConfigError : neither is allowed
    """
    if (url := PREFECT_API_URL.value()) and not is_own_server(url):
        _reach_standing()
        yield lambda: None
        return
    if not PREFECT_SERVER_EPHEMERAL_ENABLED.value():
        raise ConfigError(
            "PREFECT_API_URL: expected a server's address, found none, and PREFECT_SERVER_EPHEMERAL_ENABLED is "
            "false; set one of them"
        )
    with starting_server() as answered:
        yield answered


def _reach_standing() -> None:
    """Ask Prefect's standing server for its version."""
    with (
        reaching_prefect(),
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 1}),
        get_client(httpx_settings={"timeout": FIRST_ANSWER}, sync_client=True) as client,
    ):
        client.raise_for_api_version_mismatch()


# Loggers of Prefect that print by themselves; the internal one has lines of 2 kB while a server is away.
_PRINTING = ("prefect", "prefect._internal", "prefect.server", "uvicorn", "fastapi")


def _nothing(_: logging.LogRecord) -> bool:
    """Let no record through."""
    return False


def quiet_prefect() -> None:
    """Keep Prefect's log off the terminal; its server gets it all the same."""
    logging.raiseExceptions = False  # a log that a server does not take is not an error of the run
    for name in ("", *_PRINTING):
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, logging.StreamHandler) and type(handler).__module__ == handlers.__name__:
                handler.addFilter(_nothing)  # a level would be set again by Prefect
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).setLevel(logging.INFO)


def log_to_prefect(line: str) -> None:
    """Write a line to the logs of the Prefect run in progress, if there is one, and of the run that it is part of."""
    with suppress(MissingContextError):
        logger = get_run_logger()
        logger.info(line)
        with optional():
            if (whole := _outermost(flow_run.id)) != flow_run.id:
                logger.info(line, extra={"flow_run_id": whole, "task_run_id": None})


@lru_cache(maxsize=8)
def _outermost(current: str) -> str | None:
    """Return the flow run that the current one is part of, which is a question to the server."""
    whole: str | None = flow_run.root_flow_run_id
    return whole


def label_run(identity: str, name: str, tags: Sequence[str]) -> None:
    """Give a flow run in Prefect a name and tags."""
    with optional(), get_client(sync_client=True) as client:
        client.update_flow_run(UUID(identity), name=name, tags=tags)


def run_step(job: Job, step: Step, specs: Sequence[StageSpec], *, timeout: int | None = None) -> None:
    """Complete stages of one kind as one Prefect task; complete stages need no task."""
    if wanting := incomplete(job.store, specs):
        kind = wanting[0].stage
        label = wanting[0].label if len(wanting) == 1 else f"{len(wanting)} stages"
        named = _complete.with_options(name=kind, task_run_name=f"{kind}: {label}", timeout_seconds=timeout)
        try:
            with _untagged():
                named(quote((job, step, wanting)))  # quoted: Prefect does not look inside for futures
        except TaskRunTimeoutError as error:
            why = f"stopped after {timeout} s (cluster.stage_timeout); run again to resume"
            raise PartitionError(f"{kind} {label}: {why}") from error


def run_report(job: Job, run: str, write: Callable[..., str]) -> str:
    """Write the report of a run as one Prefect task and return its address; its workers end meanwhile.

    Parameters
    ----------
    write : writes the report and returns its first page, relative to the store; takes `created`, `wait` and `say`
    """
    job.pool.release()
    with _untagged():
        path: str = _report(quote((job, run, write)))
    return path


def _untagged() -> AbstractContextManager[object]:
    """Keep the tags of a flow run off its task runs, on a run's own server.

    Prefect asks its server for a slot of each tag, most of a second a task. A standing server may have limits by tag.
    """
    return TagsContext(current_tags=set()) if is_own_server(PREFECT_API_URL.value()) else nullcontext()


def _passing(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:  # Any: Prefect's own generics
    """Say whether a failure is temporary: a fault of network, disk or scheduler, not of the input."""
    try:
        state.result()
    except TaskRunTimeoutError:
        return False
    except PASSING:
        return True
    except Exception as error:
        return isinstance(error.__cause__, PASSING)
    return False


@task(
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAYS,
    retry_condition_fn=_passing,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def _complete(work: Any) -> None:  # Any: (Job, Step, specs), quoted on the way
    """Complete the stages and report progress to Prefect."""
    job, step, specs = work
    curves = CurveReader(job.store, step.curves, specs)
    make(replace(job, observer=_PrefectObserver(job.observer, curves)), step, specs)
    finished = [open_finished(job.store, spec) for spec in specs]
    rows = [
        {"stage": spec.title, "place": job.store.path(stage.path), "partitions": stage.layout.partitions}
        for spec, stage in zip(specs, finished, strict=True)
    ]
    with optional():
        create_table_artifact(table=rows, key=f"{specs[0].stage}-stages", description="Completed stages")
        for spec, table in curves.tables():
            create_table_artifact(table=table, key=_key(f"{spec.title} curves"), description=f"Curves of {spec.title}")


@task(name="report", cache_policy=NO_CACHE, persist_result=False)
def _report(work: Any) -> str:  # Any: (Job, name of the run, function), quoted on the way
    """Write the report and link it."""
    job, run, write = work
    created = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    place: str = job.store.path(write(created=created, wait=job.wait, say=job.observer.say))
    with optional():
        link = Path(place).absolute().as_uri() if job.store.local else place
        create_markdown_artifact(f"[The report of run {run}]({link}) begins at `{place}`", key="report")
    return place


@dataclass
class _PrefectObserver:
    """An observer that passes calls on to another one and reports progress to Prefect."""

    inner: Observer
    curves: CurveReader
    artifact: UUID | None = None
    total: int = 0
    done: int = 0
    updated: float = 0.0

    def begin(self, title: str, total: int, done: int) -> None:
        self.inner.begin(title, total, done)
        self.curves.begin()
        self.total, self.done, self.updated = max(total, 1), done, time.monotonic()
        self.artifact = None
        with optional():
            found = create_progress_artifact(progress=100 * done / self.total, key=_key(title), description=title)
            assert isinstance(found, UUID)
            self.artifact = found

    def advance(self, title: str) -> None:
        self.inner.advance(title)
        for line in self.curves.lines():
            self.inner.say(line)
        self.done += 1
        if time.monotonic() - self.updated > ARTIFACT_EVERY:
            self._update(100 * self.done / self.total)

    def end(self, title: str, seconds: float) -> None:
        self.inner.end(title, seconds)
        self._update(100.0)

    def say(self, text: str) -> None:
        self.inner.say(text)

    def _update(self, percent: float) -> None:
        """Update the progress artifact."""
        if self.artifact is not None:
            with optional():
                update_progress_artifact(artifact_id=self.artifact, progress=percent)
        self.updated = time.monotonic()


def _key(title: str) -> str:
    """Return an artifact key: small letters, digits and dashes."""
    return "-".join("".join(c if c.isalnum() and c.isascii() else " " for c in title.lower()).split())
