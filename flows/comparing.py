"""Finished runs of a store side by side: their settings and the main figures of their reports."""

import hashlib
import io
from collections.abc import Callable, Sequence
from datetime import datetime

import pandas as pd

from configs.load import ConfigError, config_text
from flows.carding import FinishedRun, finished_run
from storage.runs import run_names
from storage.stores import Store
from tasks.report.comparison import Comparison, compare_runs, comparison_page
from tasks.report.measures import PATH
from tasks.report.pages import RunFacts
from tasks.steps.questions import QUESTIONS
from tasks.steps.report import report_folder, report_is_current, write_report

MAX_NAME = 150  # characters of a page's name, which file systems limit


def compared(store: Store, names: Sequence[str], say: Callable[[str], None]) -> tuple[Comparison, str]:
    """Compare runs, and write the page next to those of the first run's report.

    Parameters
    ----------
    names : of one or more runs; the networks of one run are compared with each other
    say : called with a line where a report is written first

    Returns
    -------
    the comparison, and the address of its page

    Raises
    ------
    ConfigError : a run is named twice, is not in the store, or is not finished
    StoreError : the store does not have a run
    """
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise ConfigError(f"RUN: expected different runs, found {twice!r} twice")
    known = run_names(store)
    if unknown := [name for name in names if known and name not in known]:
        raise ConfigError(f"RUN: expected one of the runs {', '.join(known)}, found {unknown[0]!r}")
    runs = {name: finished_run(store, name) for name in names}
    measures = {name: _measures(run, say) for name, run in runs.items()}
    configs = {name: run.config.model_dump(mode="json") for name, run in runs.items()}
    found = compare_runs(configs, measures)
    first = runs[names[0]]
    page = _page_name(names[1:])
    path = f"{report_folder(first.config)}/{page}"
    store.write(path, comparison_page(found, _facts(first), _pages(first), page))
    return found, store.path(path)


def _page_name(others: Sequence[str]) -> str:
    """Return the name of the page next to the first run's report; names of runs do not have a plus."""
    named = "+".join(others)
    if len(named) > MAX_NAME:
        named = hashlib.sha256(named.encode()).hexdigest()[:16]
    return f"compare-{named}.html" if named else "compare.html"


def _measures(run: FinishedRun, say: Callable[[str], None]) -> pd.DataFrame:
    """Return the main figures of a run from its report, which is written again where it is not current."""
    if not report_is_current(run.store, run.plan.made()):
        say(f"writing the report of run {run.config.name} first, which has its main figures")
        whole = frozenset(spec.path for spec in run.plan.stages)
        write_report(run.store, run.plan.made(), created=_now(), reused=whole, say=say)
    data = run.store.read(f"{report_folder(run.config)}/{PATH}")
    return pd.read_csv(io.BytesIO(data), keep_default_na=False, dtype={"network": str, "question": str})


def _facts(run: FinishedRun) -> RunFacts:
    """Return what the page says of the run next to whose pages it lies."""
    return RunFacts(
        name=run.config.name,
        created=_now(),
        config_yaml=config_text(run.config),
        store="",
        versions={},
        stages=pd.DataFrame(),
        training_images=run.config.report.training_images,
    )


def _pages(run: FinishedRun) -> list[str]:
    """Return the names of the pages of a run's report."""
    answers = run.plan.answers
    return [name for name, question in QUESTIONS.items() if question.page is not None and answers.get(name)]


def _now() -> str:
    """Return the time as pages print it."""
    return datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
