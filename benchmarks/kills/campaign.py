"""A campaign: one kind of process is killed again and again under runs of small configs, until enough kills are had."""

import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from benchmarks.kills.disks import FULL, Disk
from benchmarks.kills.moments import START, Moment, draw, kinds, reach, segments
from benchmarks.kills.packing import PAUSES, is_packing
from benchmarks.kills.runs import Commands, Run
from benchmarks.kills.servers import Servers
from benchmarks.kills.stores import Digests, contents, differences, left_over, records, redone, torn
from benchmarks.kills.verdicts import DONE, FAILED, KILLED, judged
from storage.claims import CLAIMS, HEARTBEAT
from storage.stores import Store

Say = Callable[[str], None]
KILLS_OF_A_STORE = (6, 16)  # at least and at most; then a run may get through
PACKING = 0.8  # of the moments of a campaign that packs slowly: while it does
FRUITLESS = 5  # rounds in a row that end before their first moment
WHOLE = "whole"
RACE, LATE, NOTHING, DISK = "race of two runs", "late writer", "nothing", "full disk"
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
    survived: bool = False  # the run went on by itself, of two both
    same_bytes: bool = False
    waited: float = 0.0  # seconds, the longest that a run of this store waited for a claim
    problems: list[str] = field(default_factory=list)  # of all kinds, in all runs of this store; other bytes are some
    said: str = ""  # the last line of the run that was hit, where it ended by that
    seed: int | None = None  # of the campaign
    packing: bool = False  # partition records were being packed


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
    aim: frozenset[str] = frozenset()  # kinds of stages to hit; empty: all, start-up and report too
    hits: Counter[str] = field(default_factory=Counter)  # by kind of stage: those with fewer come first
    disk: Disk | None = None  # of all stores, where it is the target

    def run(self, settings: Sequence[Setting], wanted: int) -> Iterator[Kill]:
        """Yield kills until there are enough; each round has a store of its own."""
        had, fruitless = 0, 0
        for number, setting in enumerate(itertools.cycle(settings)):
            if had >= wanted:
                return
            assert fruitless < FRUITLESS, f"{fruitless} runs in a row had ended before their moment"
            if setting not in self.lengths:
                self.reference(setting)
            store = Store(self.new_store(f"round-{number}"))
            kills = self.round(setting, store, wanted - had)
            had, fruitless = had + len(kills), 0 if kills else fruitless + 1
            yield from kills
            if not any(kill.problems for kill in kills):
                store.remove("")

    def reference(self, setting: Setting) -> None:
        """Make an undisturbed run, in the store WHOLE: on a local disk wherever the others are."""
        url = self.new_store(WHOLE)
        run = self.commands.start(*setting.arguments(url))
        problems = judged(run, run.wait(), {DONE})
        store = Store(url)
        problems += [*torn(store), *left_over(store)]
        found = contents(store)
        if setting.config in self.expected:
            problems += differences(self.expected[setting.config], found)
        assert not problems, problems
        self.expected.setdefault(setting.config, found)
        self.lengths[setting] = {kind: setting.slower * length for kind, length in segments(run).items()}
        seconds = run.lines[-1][0] - run.began
        self.say(f"undisturbed {setting.config}, {setting.cluster}: {seconds:.1f} s, {len(found)} stages")
        store.remove("")

    def round(self, setting: Setting, store: Store, most: int) -> list[Kill]:
        """Hit the making of one store, run again until a run gets through, and look at what is there."""
        runs, kills, problems = list[Run](), list[Kill](), list[str]()
        known: dict[str, str] = {}  # what was finished at the last kill
        planned = min(self.dice.randint(*KILLS_OF_A_STORE), most)
        code: int | None = None
        while code != DONE and not problems:  # a run that nothing hits gets through, or that is a problem
            hits, code, found = self.attempt(setting, store, runs, planned - len(kills), known)
            kills += hits
            problems += found
        problems += redone(known, records(store))
        differing, others = self.checked(setting, store)
        problems += [*differing, *others]
        waited = max(run.longest_wait() for run in runs)
        if waited >= HEARTBEAT and self.target not in (RACE, LATE):  # there the other one lives
            problems.append(f"a run waited {waited:.0f} s for a claim")
        for kill in kills:
            kill.waited, kill.same_bytes, kill.problems = waited, not differing, problems
        if problems:
            self.say(f"PROBLEMS in {store.url}, logs {[run.log.name for run in runs]}: {problems}")
            assert kills, problems  # nothing was hit, so the problems would be lost
        return kills

    def attempt(
        self, setting: Setting, store: Store, runs: list[Run], wanted: int, known: dict[str, str]
    ) -> tuple[list[Kill], int | None, list[str]]:
        """Run once, hit that run at most as often as wanted; return the hits, the exit code and what went wrong.

        `known` holds the records of what was finished at the last kill; this brings it up to date.
        """
        began = [self.commands.start(*setting.arguments(store.url)) for _ in range(2 if self.target == RACE else 1)]
        runs += began
        disturbed, problems = self.target not in UNDISTURBED, list[str]()
        hits = [] if disturbed else [self.describe(setting, began[0])]
        while disturbed and len(hits) < wanted and self.reached(setting, runs, wanted - len(hits)):
            if (hit := self.kill(setting, began[0])) is None:
                break
            hits.append(hit)
            self.hits[hit.stage] += 1
            hit.packing = bool(self.commands.packing) and is_packing(store)
            problems += damage(store, known)
            if self.target == LATE:
                began.append(self.overtake(setting, store, began[0]))
                runs += began[1:]
                problems += damage(store, known)
                began[0].go_on()
            if self.target in (LATE, DISK):
                break  # the disk is full until the run has ended, and a run is overtaken once
        codes = [run.wait() for run in began]
        may_end = {DONE} if not disturbed or not hits else {KILLED} if self.target == "run" else {DONE, FAILED}
        for run, code in zip(began, codes, strict=True):
            problems += judged(run, code, may_end)
        self.judge_hits(hits, began, codes)
        if self.disk is not None:
            self.disk.make_room()
            problems += [
                f"said {hit.said!r}" for hit in hits if hit.said and not any(text in hit.said for text in FULL)
            ]
        return hits, codes[-1], problems

    def reached(self, setting: Setting, runs: list[Run], kills: int) -> bool:
        """Wait for the next moment to kill the last run at, of so many; say whether it came."""
        moment = self.moment(setting, runs, kills)
        return moment is not None and reach(runs[-1], moment)

    def moment(self, setting: Setting, runs: list[Run], kills: int) -> Moment | None:
        """Draw the next moment to kill at, of so many; None where the kinds to hit have passed."""
        lengths = self.lengths[setting]
        passed = self.passed(runs) | ({*lengths} - self.aim if self.aim else set())
        if self.aim and passed >= {*lengths}:
            return None
        found = draw(self.dice, lengths, passed, kills, self.hits)
        if self.commands.packing and self.dice.random() < PACKING:
            found = replace(found, packing=self.dice.uniform(0.0, PAUSES * self.commands.packing))
        return found

    def overtake(self, setting: Setting, store: Store, late: Run) -> Run:
        """Let another run make everything while a run is stopped, as if that one were on a machine that hangs.

        On a local disk its locks would last: they are removed, as on a disk of several machines that keeps none.
        """
        if store.local:
            store.remove(CLAIMS)
        other = self.commands.start(*setting.arguments(store.url))
        other.wait()
        late.began = time.monotonic()  # its patience begins again
        return other

    def passed(self, runs: list[Run]) -> set[str]:
        """Return the stages that cannot be hit any more; the one in which the last run is, or ended, still can."""
        begun = {kind for run in runs for kind in kinds(run)}
        again = {kinds(run)[-1] for run in runs[-2:]} - ({START} if len(runs) > 1 else set())
        return begun - again

    def judge_hits(self, hits: Sequence[Kill], began: Sequence[Run], codes: Sequence[int | None]) -> None:
        """Say of the hits of an attempt whether it went on: all but the last did, or there would be no later one."""
        ended = [run for run, code in zip(began, codes, strict=True) if code != DONE]
        for number, hit in enumerate(hits, 1):
            hit.survived = self.target != "run" and (number < len(hits) or not ended)
            hit.said = "" if hit.survived or not ended[0].lines else ended[0].lines[-1][1]

    def describe(self, setting: Setting, run: Run) -> Kill:
        """Return what is known of a kill at this moment."""
        standing = "standing" if "PREFECT_API_URL" in self.commands.environment else "embedded"
        standing = "none" if self.commands.bare else standing
        stage = "whole runs" if self.target in UNDISTURBED else kinds(run)[-1]
        return Kill(self.target, setting.place, setting.config, setting.cluster, standing, stage)

    def kill(self, setting: Setting, run: Run) -> Kill | None:
        """Kill the target, mend it, and say what was hit; None for a run that had ended before."""
        run.look()
        kill = self.describe(setting, run)
        if self.target == LATE:
            return kill if run.pause() else None
        if self.target == "run":
            run.kill()
            return kill if run.process.poll() == KILLED else None
        if self.disk is not None:
            self.disk.fill()
        elif self.target not in self.servers.started:
            run.kill_below("prefect.server")  # the run's own, which is not started again
        else:
            self.servers.kill(self.target, self.dice)
            self.servers.mend(self.target, self.dice)
        return kill

    def checked(self, setting: Setting, store: Store) -> tuple[list[str], list[str]]:
        """Compare a store with the reference; let `layerlore verify` read it and look at what lies around."""
        verify = self.commands.start("verify", store.url)
        others = [f"verify: {line}" for line in judged(verify, verify.wait(), {DONE})]
        return [*differences(self.expected[setting.config], contents(store))], [*others, *left_over(store)]


def damage(store: Store, known: dict[str, str]) -> list[str]:
    """Return what is torn or made again in a store; `known` are the records of what was finished, and is updated."""
    finished = records(store)
    problems = [*(f"torn: {line}" for line in torn(store)), *redone(known, finished)]
    known.update(finished)
    return problems
