"""The run of a config from the command line: from the store alone where it is complete, else by the Prefect flow."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from configs.load import ConfigError, load_config
from configs.schema import Config
from flows.plan import Plan, make_plan
from flows.progress import Progress, notes_of, planned_stages, progress_of
from tasks.engine.journal import Journal, JournalObserver
from tasks.engine.life import load_ahead
from tasks.engine.observers import terminal_observer
from tasks.engine.records import record_reuse, recorded
from tasks.steps.report import report_is_current, report_path, write_report


@dataclass(frozen=True)
class Manner:
    """How a run behaves.

    Parameters
    ----------
    wait : whether it waits for stages that another run holds
    verbose : whether it shows each partition
    alone : whether it is the only run of this process, so that its workers may be forked (`load_ahead`)
    """

    wait: bool = True
    verbose: bool = False
    alone: bool = False


def answer(source: str, overrides: Sequence[str], manner: Manner, say: Callable[[str], None]) -> str:
    """Run a config and return the address of its report.

    A finished run needs only the store; Prefect and workers are not started.
    """
    config = load_config(source, overrides)
    plan = make_plan(config)
    found = progress_of(plan)
    store, done = found.store, found.finished
    if store is not None and len(done) == len(plan.stages):
        record_reuse(store, config, plan.stages)
        if not report_is_current(store, plan.made()):
            _write(plan, found, wait=manner.wait, say=say)
        say(f"all {len(done)} stages are complete in {config.store}")
        return store.path(report_path(config))
    say(f"{len(plan.stages) - len(done)} of {len(plan.stages)} stages to make, in {config.store}")  # while it is tried
    if manner.alone:
        load_ahead(config)
    with _starting_prefect() as wait_for_prefect:  # while networks are tried, flows are imported, and workers start
        for note in notes_of(planned_stages(plan, store, done)):
            say(note)
        store = found.made_store(config)
        with recorded(store, config, plan.stages, done) as journal:
            return _flow(Progress(store, done), plan, journal, (source, list(overrides)), manner, wait_for_prefect)


def rewrite_report(config: Config, say: Callable[[str], None]) -> str:
    """Write the report of a finished run and return its address."""
    plan = make_plan(config)
    return _write(plan, progress_of(plan), wait=True, say=say)


def _write(plan: Plan, found: Progress, *, wait: bool, say: Callable[[str], None]) -> str:
    """Write the report from the store alone."""
    store, done = found.store, found.finished
    if store is None or len(done) < len(plan.stages):
        missing = len(plan.stages) - len(done)
        raise ConfigError(
            f"{plan.config.store}: expected complete stages, found {missing} incomplete; `layerlore run` the config"
        )
    created = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return store.path(write_report(store, plan.made(), created=created, reused=done, wait=wait, say=say))


@contextmanager
def _starting_prefect() -> Iterator[Callable[[], None]]:
    """Start Prefect, and give the block a function that waits for its server."""
    from tasks.engine.server import check_settings

    check_settings()  # before the import of Prefect, which would print its own warnings
    from tasks.engine.runner import quiet_prefect, starting_prefect

    quiet_prefect()  # the command line prints the error in one line
    with starting_prefect() as answered:
        yield answered


def _flow(
    found: Progress,
    plan: Plan,
    journal: Journal,
    given: tuple[str, list[str]],
    manner: Manner,
    wait_for_prefect: Callable[[], None],
) -> str:
    """Run the flow on a config and its overrides."""
    from flows.run import run
    from flows.session import open_session, tagged
    from tasks.engine.reaching import reaching_prefect
    from tasks.engine.runner import log_to_prefect

    journal.also = log_to_prefect
    with (
        terminal_observer(sys.stderr, verbose=manner.verbose) as observer,
        open_session(plan, JournalObserver(observer, journal), found, wait=manner.wait),
    ):
        wait_for_prefect()
        with reaching_prefect(), tagged(plan.config):
            address: str = run(*given)
            return address
