"""The live watch: it follows a training, or a growing folder of checkpoints, and handles each new snapshot once.

A stage that is complete is not made again, and one that another process makes is waited for: so a watch may be
killed, and two may follow the same run. It trains nothing itself.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from configs.load import ConfigError, load_config
from configs.schema import Config
from flows.holding import Held
from flows.plan import Plan, joined_answers
from flows.progress import notes_of, planned_stages
from storage.specs import StageSpec
from storage.stages import find_many
from storage.stores import Store
from tasks.engine.alerts import raise_once, send_to_prefect
from tasks.engine.life import Job, Observer, complete, incomplete, open_job
from tasks.engine.observers import LineObserver
from tasks.engine.records import record_reuse
from tasks.engine.step import Step
from tasks.steps.concepts.live import Live, Look
from tasks.steps.concepts.plan import Monitored
from tasks.steps.plan import Shared, plan_shared, waves, with_inputs, without_trainings
from tasks.steps.questions import QUESTIONS, STEPS
from tasks.steps.report import Made, report_is_current, report_path, write_report

QUESTION = "concepts"

Make = Callable[[Job, Step, Sequence[StageSpec]], object]


def watch_config(source: str, overrides: Sequence[str], *, idle: float | None) -> str:
    """Watch a config in this process without Prefect's tasks; return the address of its page, or why there is none.

    Parameters
    ----------
    idle : seconds without a new snapshot after which the watch ends; None: a training ends it, or the user
    """
    return follow(load_config(source, overrides), LineObserver(sys.stderr), complete, idle=idle)


def follow(config: Config, observer: Observer, make: Make, *, idle: float | None) -> str:
    """Follow a config until its trainings end, and return the address of its page, or why there is none.

    Parameters
    ----------
    make : completes stages of one kind
    idle : seconds without a new snapshot after which the watch ends
    """
    watching = begin_watch(config, observer, make)
    assert config.concepts is not None
    since = time.monotonic()
    while True:
        if watching.turn():
            since = time.monotonic()
        elif watching.over:
            observer.say("all snapshots are looked at: the watch ends")
            break
        elif idle is not None and time.monotonic() - since >= idle:
            observer.say(f"no new snapshot for {idle:g} s: the watch ends")
            break
        time.sleep(config.concepts.watch.every)
    return watching.address


def begin_watch(config: Config, observer: Observer, make: Make) -> "Watching":
    """Return a watch before its first look, after checks of config and store."""
    try:
        shared = plan_shared(config)
        others = {name: QUESTIONS[name].plan(config, shared) for name in config.asked if name != QUESTION}
        live = Live(config, shared)
    except (ValueError, OSError) as error:
        raise ConfigError(str(error)) from error
    held = Held.open(config, live.trainings)
    found = Watching(config, shared, others, live, held, observer, make)
    found.check_fit(held.store, live.planned)
    names = ", ".join(config.concepts.networks) if config.concepts else ""
    observer.say(f"watching {names} in {config.store}")
    return found


@dataclass
class Watching:
    """A watch in progress.

    Attributes
    ----------
    others : answers of the other questions of the config
    finals : the last stages of the answers that are handled
    checked : networks that are known to fit data and memory
    said : lines that are printed once
    over : whether nothing more can come
    address : of the page, or why there is none
    """

    config: Config
    shared: Shared
    others: dict[str, Sequence[object]]
    live: Live
    held: Held
    observer: Observer
    make: Make
    finals: frozenset[str] = frozenset()
    checked: frozenset[str] = frozenset()
    said: set[str] = field(default_factory=set)
    over: bool = False
    address: str = "none, as there was no snapshot"

    def turn(self) -> bool:
        """Look once and handle what is new; return whether there was something new, or a file still changes."""
        store = self.held.check()
        look = self._look(store)
        for line in look.lines:
            if line not in self.said:
                self.observer.say(line)
        self.said = {*look.lines}
        finals = frozenset(spec.path for answer in look.answers for spec in answer.finals)
        fresh = finals != self.finals
        try:
            if fresh:
                self._handle(store, look)
            if look.answers:
                self._publish(store, look, fresh)
        except Exception:
            self.held.check()  # a store that was moved is the cause of any other error
            if not self.live.changed():
                raise
            self.observer.say("a checkpoint has changed while it was looked at; it is looked at again")
            return True
        self.finals = finals
        self.over = look.whole and not self.live.endless
        return fresh or look.changing

    def check_fit(self, store: Store, answers: Sequence[Monitored]) -> None:
        """Check each network once, as a run does before it begins: data, networks and memory fit together.

        Raises
        ------
        ConfigError : they do not; names the config's key
        """
        networks = frozenset(answer.network for answer in answers)
        if networks - self.checked:
            for note in notes_of(planned_stages(self._plan(answers), store)):
                if not any(line in note for line in self.said):
                    self.observer.say(note)
            self.checked |= networks

    def _look(self, store: Store) -> Look:
        """Return what there is now; a folder that is missing ends the watch in one line."""
        try:
            return self.live.look(store)
        except ValueError as error:
            raise ConfigError(str(error)) from error

    def _handle(self, store: Store, look: Look) -> None:
        """Complete the stages of all snapshots up to now, and raise alerts."""
        stages = without_trainings([spec for answer in look.answers for spec in answer.finals])
        if incomplete(store, stages):
            self.check_fit(store, look.answers)
            listed = {spec.path for spec in stages}
            apart = {read.path for spec in stages for read in spec.inputs.values()} - listed
            with open_job(self.config, store, self.observer) as job:
                for wave in waves(stages, apart):
                    self.make(job, STEPS[wave[0].stage], wave)
        for answer in look.answers:
            count, last = len(answer.snapshots), answer.snapshots[-1].label
            self.observer.say(f"{answer.network} seed {answer.seed}: snapshots looked at: {count}, the last is {last}")
        for alert in self.live.alerts(store, look.answers):
            raise_once(store, alert, send_to_prefect, self.observer.say)

    def _publish(self, store: Store, look: Look, fresh: bool) -> None:
        """Write the page unless it is current, and record a run that is whole."""
        made, whole = self._made(store, look)
        self.address = store.path(report_path(self.config))
        current = report_is_current(store, made)
        if not current:
            created = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
            write_report(store, made, created=created, reused=frozenset(), say=self.observer.say)
            self.observer.say(f"page: {self.address}")
        if whole and (fresh or not current):  # an earlier watch may have been killed between page and record
            record_reuse(store, self.config, made.stages)

    def _made(self, store: Store, look: Look) -> tuple[Made, bool]:
        """Return the inputs of the page, and whether they are those of the whole run."""
        plan = self._plan(look.answers)
        if look.whole and not incomplete(store, plan.stages):
            return plan.made(), True
        trainings = self.shared.trainings
        finals = [spec for answer in look.answers for spec in answer.finals]
        stages = with_inputs([*trainings.values(), *finals])
        done = find_many(store, [spec.path for spec in stages])
        ended = {key: spec for key, spec in trainings.items() if spec.path in done}
        return Made(self.config, [spec for spec in stages if spec.path in done], ended, {QUESTION: look.answers}), False

    def _plan(self, monitored: Sequence[Monitored]) -> Plan:
        """Return the plan of all questions, with some answers of question 3."""
        answers = {**self.others, QUESTION: monitored}
        ordered = {name: answers[name] for name in QUESTIONS if name in answers}
        return Plan(self.config, self.shared, joined_answers(self.config, self.shared, ordered))
