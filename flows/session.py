"""The session that the flows of one run share: its plan, and the job of its steps."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from configs.load import check_config, find_code, load_config
from configs.schema import Config
from flows.plan import Plan, make_plan
from flows.progress import Progress, notes_of, planned_stages, progress_of
from tasks.engine.life import Job, Observer, open_job
from tasks.engine.observers import terminal_observer
from tasks.engine.records import record_reuse, recorded
from tasks.engine.runner import run_step
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
    """Return the name of a flow run in Prefect: the run's name, where a session is open already."""
    current = _CURRENT.get()
    return "direct" if current is None else current.plan.config.name


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
        nullcontext() if whole else recorded(store, settled, plan.stages),
        terminal_observer(sys.stderr) as observer,
        open_session(plan, observer, Progress(store, found.finished)) as session,
    ):
        for note in notes:
            observer.say(note)
        yield session
