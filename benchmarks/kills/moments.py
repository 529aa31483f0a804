"""Moments to kill at: spread evenly over the stages of a run, and within a stage over its time."""

import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.kills.runs import LOOK, Run

BEGIN = re.compile(r"(?P<title>.+): \d+ of \d+( partitions to do)?$")
DONE = re.compile(r"(?P<title>.+): done in [\d.]+ s$")
AHEAD = 3  # kinds of stages at least; from all that are left the end of a run would soon be reached
START, REPORT = "start-up", "report"


@dataclass(frozen=True)
class Moment:
    """A moment of a run: so many seconds after a kind of stage begins, or a later one where there is none to do.

    Attributes
    ----------
    packing : instead, so many seconds after the run begins to pack partition records
    """

    kind: str
    delay: float
    later: frozenset[str]
    packing: float | None = None


def events(run: Run) -> list[tuple[float, str]]:
    """Return when which kind of stage began, start-up and report among them, in order; seconds since the start."""
    found, last = [(0.0, START)], 0.0
    for moment, line in run.lines:
        if match := BEGIN.fullmatch(line):
            found.append((moment - run.began, match["title"].split()[0]))
        elif DONE.fullmatch(line):
            last = moment - run.began
    return [*found, (last, REPORT)]


def segments(run: Run) -> dict[str, float]:
    """Return for each kind of stage the seconds until the next one begins; of a run that has got through."""
    found = events(run)
    ends = [moment for moment, _ in found[1:]] + [run.lines[-1][0] - run.began]
    return {kind: max(end - moment, 0.01) for (moment, kind), end in zip(found, ends, strict=True)}


def draw(
    dice: random.Random,
    lengths: dict[str, float],
    passed: set[str],
    kills: int,
    hits: Mapping[str, int],
) -> Moment:
    """Return a moment in one of the next kinds of stages, in one that was hit least.

    Parameters
    ----------
    lengths : seconds of each kind, in the order of a run
    passed : kinds that cannot be hit any more
    kills : how often the rest of the run is to be hit: as far ahead as spreads them over it
    hits : how often each kind was hit before
    """
    left = [kind for kind in lengths if kind not in passed] or [REPORT]
    ahead = left[: max(AHEAD, -(-2 * len(left) // (kills + 1)))]
    counts = {kind: hits.get(kind, 0) for kind in ahead}
    kind = dice.choice([kind for kind in ahead if counts[kind] == min(counts.values())])
    later = frozenset([*lengths][[*lengths].index(kind) + 1 :])
    return Moment(kind, dice.uniform(0.0, lengths[kind]), later)


def reach(run: Run, moment: Moment) -> bool:
    """Wait for a moment of a run; say whether it came before the end of the run."""
    while run.look() is None:
        if moment.packing is not None:
            if run.packs():
                return run.wait(time.monotonic() + moment.packing) is None
            time.sleep(LOOK)
            continue
        for at, kind in here(run):
            if kind == moment.kind or kind in moment.later:
                return run.wait(run.began + at + moment.delay) is None
        time.sleep(LOOK)
    return False


def here(run: Run) -> list[tuple[float, str]]:
    """Return what has begun so far; the report begins where the last stage of the run is done."""
    found = events(run)
    text = run.text()
    total = re.search(r"^(\d+) of \d+ stages to make", text, re.M)
    made = sum(counted(line) for _, line in run.lines if DONE.fullmatch(line))
    return found if total is not None and made >= int(total[1]) else found[:-1]


def counted(line: str) -> int:
    """Return how many stages a line reports as done: `kind (5): done` is five."""
    several = re.match(r"\S+ \((\d+)\): ", line)
    return int(several[1]) if several else 1


def kinds(run: Run) -> list[str]:
    """Return what has begun so far, by kind."""
    return [kind for _, kind in here(run)]
