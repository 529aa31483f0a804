"""Cards from the command line and from notebooks: all that a finished run of a store knows of one image."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from configs.load import ConfigError
from configs.schema import Config
from flows.explaining import recorded_config
from flows.plan import Plan, make_plan
from storage.memory import remembering
from storage.runs import RunRecord, choose_run, records
from storage.stages import find_many
from storage.stores import Store
from tasks.report.cards.results import CardResults
from tasks.steps.cards.card import make_card
from tasks.steps.cards.choose import Wanted as Wanted
from tasks.steps.cards.page import render, write_card
from tasks.steps.common.subject import Watch
from tasks.steps.report import report_folder, report_path, write_report


@dataclass(frozen=True)
class FinishedRun:
    """A finished run of a store, with its plan.

    Attributes
    ----------
    record : of the last time that it ran
    """

    store: Store
    record: RunRecord
    plan: Plan

    @property
    def config(self) -> Config:
        """The config of the run."""
        return self.plan.config


def finished_run(store: Store, name: str | None) -> FinishedRun:
    """Return a run of a store, after checking that all its stages are there.

    Parameters
    ----------
    name : of the run; None for the only one

    Raises
    ------
    ConfigError : stages are missing, or its config is not one of this version
    """
    store = remembering(store)
    record = records(store, choose_run(store, name))[-1]
    plan = make_plan(recorded_config(record))
    paths = [spec.path for spec in plan.stages]
    missing = len(paths) - len(find_many(store, paths))
    if missing:
        raise ConfigError(
            f"run {record.name}: expected complete stages, found {missing} of {len(paths)} missing; `layerlore run` "
            "its config first"
        )
    return FinishedRun(store, record, plan)


def card_of(run: FinishedRun, wanted: Wanted, watch: Watch = lambda segments, _: segments) -> CardResults:
    """Return what a run knows of an image."""
    return make_card(run.store, run.config, (run.plan.shared, run.plan.answers), wanted, watch)


def sentences_of(card: CardResults) -> list[str]:
    """Return a card in sentences, for a terminal."""
    from tasks.report.cards.content import said

    return said(card)


def card_html(run: FinishedRun, card: CardResults) -> str:
    """Return the page of a card, which takes style and scripts from the report's folder."""
    return render(run.config, run.plan.answers, card, _now()).decode()


def save_card(run: FinishedRun, card: CardResults, say: Callable[[str], None] = lambda _: None) -> str:
    """Write a card next to the pages of the run's report, which is written where it is missing; return its address."""
    if not run.store.exists(report_path(run.config)):
        say(f"writing the report of run {run.config.name} first, to which the card leads")
        whole = frozenset(spec.path for spec in run.plan.stages)
        write_report(run.store, run.plan.made(), created=_now(), reused=whole, say=say)
    page = card_html(run, card).encode()
    return run.store.path(write_card(run.store, report_folder(run.config), card, page))


def _now() -> str:
    """Return the time as pages print it."""
    return datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
