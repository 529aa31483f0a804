"""A run without Prefect: everything else is what `layerlore run` does, at a fraction of its time."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from flows import command
from flows.command import Manner
from flows.plan import Plan
from flows.progress import Progress
from tasks.engine.journal import Journal, JournalObserver
from tasks.engine.life import complete, open_job
from tasks.engine.observers import terminal_observer
from tasks.steps.plan import waves
from tasks.steps.questions import STEPS
from tasks.steps.report import write_report


def leave_prefect_out() -> None:
    """Let the commands of this process make stages and report by themselves."""
    command._starting_prefect = no_prefect
    command._flow = make_all


@contextmanager
def no_prefect() -> Iterator[Callable[[], None]]:
    """Start nothing, so that there is nothing to wait for."""
    yield lambda: None


def make_all(
    found: Progress,
    plan: Plan,
    journal: Journal,
    given: tuple[str, list[str]],
    manner: Manner,
    wait_for_prefect: Callable[[], None],
) -> str:
    """Make all stages of a plan and its report, and return the report's first page."""
    with (
        terminal_observer(sys.stderr, verbose=manner.verbose) as terminal,
        open_job(plan.config, found.made_store(plan.config), JournalObserver(terminal, journal)) as job,
    ):
        for wave in waves(plan.stages):
            complete(job, STEPS[wave[0].stage], wave)
        created = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
        return job.store.path(write_report(job.store, plan.made(), created=created, reused=found.finished))
