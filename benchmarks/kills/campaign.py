"""A campaign: one kind of process is killed again and again under runs of small configs, until enough kills are had."""

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.kills.moments import START, draw, kinds, reach, segments
from benchmarks.kills.runs import Commands, Run
from benchmarks.kills.servers import Servers
from benchmarks.kills.stores import Digests, differences, digests, left_over, torn
from storage.claims import HEARTBEAT
from storage.stores import Store

Say = Callable[[str], None]
KILLS_OF_A_STORE = 12  # at most; then a run may get through
ATTEMPTS = 20  # runs of one store
WHOLE = "whole"
RACE, NOTHING = "race of two runs", "nothing"
UNDISTURBED = (RACE, NOTHING)


@dataclass
class Kill:
    """What a kill came to."""

    target: str
    place: str
    config: str
    cluster: str
    prefect: str
    stage: str
    survived: bool = False
    identical: bool = False
    waited: float = 0.0  # seconds, the longest that a run of this store waited for a claim
    problems: list[str] = field(default_factory=list)
    said: str = ""  # the last line of the run that was hit, where it ended by that


@dataclass(frozen=True)
class Setting:
    """Where a round takes place: a config, and what changes it."""

    config: str
    given: str
    place: str
    cluster: str
    changes: tuple[str, ...]
    slower: float = 1.0  # than on a local disk, about

    def arguments(self, store: str) -> list[str]:
        """Return the command line of a run into a store."""
        parts = (f"store={store}", *self.changes)
        return ["run", self.given, *(part for change in parts for part in ("--set", change))]


@dataclass
class Campaign:
    """Kills of one target."""

    target: str
    commands: Commands
    servers: Servers
    new_store: Callable[[str], str]
    dice: random.Random
    say: Say
    expected: dict[str, Digests] = field(default_factory=dict)
    lengths: dict[Setting, dict[str, float]] = field(default_factory=dict)

    def run(self, settings: Sequence[Setting], wanted: int) -> Iterator[Kill]:
        """Yield kills until there are enough; each round has a store of its own."""
        had = 0
        for number, setting in enumerate(itertools.cycle(settings)):
            if had >= wanted:
                return
            if setting not in self.lengths:
                self.reference(setting)
            for kill in self.round(setting, f"round-{number}", wanted - had):
                had += 1
                yield kill

    def reference(self, setting: Setting) -> None:
        """Make a run that nobody disturbs, in the store WHOLE: on a local disk wherever the others are."""
        url = self.new_store(WHOLE)
        run = self.commands.start(*setting.arguments(url))
        code = run.wait()
        assert code == 0, f"the undisturbed run has exit code {code}: {run.text()}"
        store = Store(url)
        problems = [*torn(store), *left_over(store)]
        found = digests(store)
        if setting.config in self.expected:
            problems += differences(self.expected[setting.config], found)
        assert not problems, problems
        self.expected.setdefault(setting.config, found)
        self.lengths[setting] = {kind: setting.slower * length for kind, length in segments(run).items()}
        seconds = run.lines[-1][0] - run.began
        self.say(f"undisturbed {setting.config}, {setting.cluster}: {seconds:.1f} s, {len(found)} stages")
        store.remove("")

    def round(self, setting: Setting, name: str, most: int) -> list[Kill]:
        """Hit the making of one store, run again until a run gets through, and look at what is there."""
        store = Store(self.new_store(name))
        runs, kills, problems = list[Run](), list[Kill](), list[str]()
        planned = min(self.dice.randint(4, KILLS_OF_A_STORE), most)
        code: int | None = None
        while code != 0 and len(runs) < ATTEMPTS and not problems:
            began = [self.commands.start(*setting.arguments(store.url)) for _ in range(2 if self.target == RACE else 1)]
            runs += began
            before = len(kills)
            if self.target in UNDISTURBED:
                kills.append(self.note(setting, began[0]))
            while self.target not in UNDISTURBED and len(kills) < planned:
                if not reach(began[0], draw(self.dice, self.lengths[setting], self.passed(runs))):
                    break
                kills.append(self.kill(setting, began[0]))
                problems += [f"torn: {line}" for line in torn(store)]
            for run in began:
                code = run.wait()
                problems += judged(run, code, killed=self.target == "run" and len(kills) > before)
                if code != 0 and self.target in UNDISTURBED:
                    problems.append(f"{run.log.name}: exit code {code}: {run.text()[-300:]}")
            self.settle(kills[before:], began[0], code)
        if code != 0:
            problems.append(f"exit code {code} after {len(runs)} runs: {runs[-1].text()[-300:]}")
        problems += self.checked(setting, store)
        waited = max(run.longest_wait() for run in runs)
        if waited >= HEARTBEAT and self.target != RACE:  # there the other one lives
            problems.append(f"a run waited {waited:.0f} s for a claim")
        for kill in kills:
            kill.waited, kill.identical, kill.problems = waited, not problems, problems
        if problems:
            self.say(f"PROBLEMS in {store.url}, logs {[run.log.name for run in runs]}: {problems}")
        else:
            store.remove("")
        return kills

    def passed(self, runs: list[Run]) -> set[str]:
        """Return the stages that cannot be hit any more; the one in which the last run is, or ended, still can."""
        begun = {kind for run in runs for kind in kinds(run)}
        again = {kinds(run)[-1] for run in runs[-2:]} - ({START} if len(runs) > 1 else set())
        return begun - again

    def settle(self, kills: Sequence[Kill], run: Run, code: int | None) -> None:
        """Say of the kills of a run whether it went on: all but the last did, or there would be no later one."""
        for number, kill in enumerate(kills, 1):
            kill.survived = self.target != "run" and (number < len(kills) or code == 0)
            kill.said = "" if kill.survived or not run.lines else run.lines[-1][1]

    def note(self, setting: Setting, run: Run) -> Kill:
        """Return what is known of a kill at this moment."""
        standing = "standing" if "PREFECT_API_URL" in self.commands.environment else "embedded"
        stage = "whole runs" if self.target in UNDISTURBED else kinds(run)[-1]
        return Kill(self.target, setting.place, setting.config, setting.cluster, standing, stage)

    def kill(self, setting: Setting, run: Run) -> Kill:
        """Kill the target, mend it, and say what was hit."""
        run.look()
        kill = self.note(setting, run)
        if self.target == "run":
            run.kill()
        elif self.target not in self.servers.started:
            run.kill_below("prefect.server")  # the run's own, which nobody starts again
        else:
            self.servers.kill(self.target, self.dice)
            self.servers.mend(self.target, self.dice)
        return kill

    def checked(self, setting: Setting, store: Store) -> list[str]:
        """Compare a finished store with the reference, and let `layerlore verify` read it."""
        verify = self.commands.start("verify", store.url)
        code = verify.wait()
        problems = [] if code == 0 else [f"verify: exit code {code}: {verify.text()[-300:]}"]
        return [*problems, *differences(self.expected[setting.config], digests(store)), *left_over(store)]


def judged(run: Run, code: int | None, *, killed: bool) -> list[str]:
    """Return what is wrong with how a run ended and what it said."""
    text = run.text()
    problems = [f"{run.log.name}: a traceback"] if "Traceback" in text else []
    if code is None:
        problems.append(f"{run.log.name}: hangs: {text[-300:]}")
    elif code not in (0, 1, -9) or (code == -9 and not killed):
        problems.append(f"{run.log.name}: exit code {code}: {text[-300:]}")
    errors = [line for _, line in run.lines if line.startswith("error")]
    if code == 1 and len(errors) != 1:
        problems.append(f"{run.log.name}: {len(errors)} lines of errors: {text[-500:]}")
    return problems
