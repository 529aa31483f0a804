"""The session that the flows of one run share: its plan, and the job of its steps."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import tags
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL

from configs.load import check_config, find_code, load_config
from configs.schema import Config
from configs.secrets import without_passwords
from flows.plan import Plan, make_plan
from flows.progress import Progress, notes_of, planned_stages, progress_of
from tasks.engine.journal import Journal, JournalObserver
from tasks.engine.life import Job, Observer, open_job
from tasks.engine.observers import terminal_observer
from tasks.engine.records import record_reuse, recorded
from tasks.engine.runner import label_run, log_to_prefect, run_step
from tasks.engine.server import is_own_server
from tasks.steps.plan import waves
from tasks.steps.questions import STEPS

Given = str | dict[str, Any]  # Any: YAML; a config as a path, a preset's name or its content


@dataclass(frozen=True)
class Session:
    """A run in progress; `reused` holds the paths of the stages that were complete before it."""

    plan: Plan
    job: Job
    reused: frozenset[str]

    @property
    def whole(self) -> bool:
        """Whether every stage was complete before it."""
        return len(self.reused) == len(self.plan.stages)

    @property
    def timeout(self) -> int | None:
        """Seconds after which a stage is stopped."""
        return self.plan.config.cluster.stage_timeout


def make_stages(here: Session, question: str | None = None) -> None:
    """Complete the stages of a question, or those that all questions share; inputs first, ready stages together."""
    for wave in waves(here.plan.base if question is None else here.plan.of(question)):
        run_step(here.job, STEPS[wave[0].stage], wave, timeout=here.timeout)


_CURRENT: ContextVar[Session | None] = ContextVar("session", default=None)


@contextmanager
def open_session(plan: Plan, observer: Observer, found: Progress, *, wait: bool = True) -> Iterator[Session]:
    """Open the workers of a run unless all its stages are finished; flows called in the block share them."""
    idle = len(found.finished) == len(plan.stages)
    with open_job(plan.config, found.made_store(plan.config), observer, wait=wait, idle=idle) as job:
        session = Session(plan, job, found.finished)
        token = _CURRENT.set(session)
        try:
            yield session
        finally:
            _CURRENT.reset(token)


def run_name() -> str:
    """Return the name of a flow run in Prefect: the name of the run, then the question or another part of it."""
    current, flow = _CURRENT.get(), flow_run.flow_name
    name = _given_name(flow_run.parameters.get("config")) if current is None else current.plan.config.name
    return name if flow == "run" else f"{name}: {flow}"


def _given_name(config: object) -> str:
    """Return the name of a run whose config was not read yet."""
    return str(config.get("name", "run")) if isinstance(config, dict) else Path(str(config)).stem


def tagged(config: Config, question: str | None = None) -> AbstractContextManager[object]:
    """Tag the flow runs in a block with run, store, networks and question."""
    return tags(*_tags(config, question))


def _tags(config: Config, question: str | None) -> list[str]:
    """Return the tags of a flow run in Prefect."""
    asked = getattr(config, question) if question else None
    networks = config.networks if asked is None else asked.networks
    found = [f"run:{config.name}", f"store:{config.store}", *(f"network:{name}" for name in networks)]
    return [*found, *([f"question:{question}"] if question else [])]


def _announce(observer: Observer) -> None:
    """Say where a standing Prefect server shows the flow run, once for the flows in it."""
    standing = PREFECT_API_URL.value() and not is_own_server(PREFECT_API_URL.value())
    if flow_run.id and not flow_run.parent_flow_run_id and standing:
        observer.say(f"Prefect: {without_passwords(flow_run.ui_url)}")


def _label(config: Config) -> None:
    """Give a flow run that a deployment began the name of its run, and its tags."""
    if flow_run.id:
        flow = flow_run.flow_name
        label_run(flow_run.id, run_name(), [*flow_run.tags, *_tags(config, flow if flow in config.asked else None)])


def given_config(config: Given, overrides: Sequence[str]) -> Config:
    """Return a config that is given as a path, a preset's name or its content."""
    if isinstance(config, str):
        return load_config(config, overrides)
    found = check_config(config, "config", overrides)
    find_code(found, "config")
    return found


@contextmanager
def session_of(config: Given, overrides: Sequence[str]) -> Iterator[Session]:
    """Yield the session that is open, or open one from a config."""
    if (current := _CURRENT.get()) is not None:
        _announce(current.job.observer)
        yield current
        return
    settled = given_config(config, overrides)
    plan = make_plan(settled)
    found = progress_of(plan)
    notes = notes_of(planned_stages(plan, found.store, found.finished))
    whole, store = len(found.finished) == len(plan.stages), found.made_store(settled)
    if whole:
        record_reuse(store, settled, plan.stages)
    with (
        nullcontext(None) if whole else recorded(store, settled, plan.stages, found.finished) as journal,
        terminal_observer(sys.stderr) as terminal,
        open_session(plan, _journaled(terminal, journal), Progress(store, found.finished)) as session,
        tagged(settled),
    ):
        _label(settled)
        _announce(session.job.observer)
        for note in notes:
            session.job.observer.say(note)
        yield session


def _journaled(observer: Observer, journal: Journal | None) -> Observer:
    """Return an observer that also writes a journal, where there is one, and Prefect's log."""
    if journal is None:
        return observer
    journal.also = log_to_prefect
    return JournalObserver(observer, journal)
