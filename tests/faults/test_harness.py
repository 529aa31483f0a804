"""What the harness calls a fault: it must see each kind."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.kills.campaign import judged
from benchmarks.kills.moments import REPORT, START, draw, events, kinds, segments
from benchmarks.kills.runs import Run
from benchmarks.kills.stores import differences, digests, left_over, torn
from benchmarks.kills.table import table
from storage.claims import claim

if TYPE_CHECKING:
    from tests.conftest import Run as Made

SAID = [
    "3 of 3 stages to make, in lore",
    "manifest digits [4fceac6d]: 1 of 1 partitions to do",
    "manifest digits [4fceac6d]: done in 0.1 s",
    "features (2): 2 of 4 partitions to do",
    "features (2): done in 3.2 s",
    "report: lore/reports/tiny/index.html",
]


class Ended:
    """A process that has ended."""

    pid = 1

    def poll(self) -> int:
        return 0


def run_that_said(lines: list[str], times: list[float] | None = None) -> Run:
    """Return a run with an output."""
    moments = times or [float(number) for number in range(1, len(lines) + 1)]
    return Run(Ended(), Path("nowhere"), 0.0, list(zip(moments, lines, strict=True)))


def test_stages_of_a_run_are_told_by_what_it_says() -> None:
    run = run_that_said(SAID)
    assert events(run) == [(0.0, START), (2.0, "manifest"), (4.0, "features"), (5.0, REPORT)]
    assert kinds(run) == [START, "manifest", "features", REPORT]
    assert kinds(run_that_said(SAID[:4])) == [START, "manifest", "features"]  # the report has not begun
    assert segments(run) == {START: 2.0, "manifest": 2.0, "features": 1.0, REPORT: 1.0}


def test_moments_fall_into_the_stages_that_are_left() -> None:
    import random

    lengths = {START: 1.0, "a": 2.0, "b": 3.0, REPORT: 1.0}
    drawn = [draw(random.Random(seed), lengths, {START, "a"}) for seed in range(50)]
    assert {moment.kind for moment in drawn} == {"b", REPORT}
    assert max(moment.delay for moment in drawn if moment.kind == "b") > 2.0
    assert {moment.later for moment in drawn if moment.kind == "b"} == {frozenset({REPORT})}


@pytest.mark.parametrize(
    ("lines", "code", "expected"),
    [
        ([], 0, ""),
        (["error: no space"], 1, ""),
        (["Traceback (most recent call last):", "error: x"], 1, "a traceback"),
        (["error: x", "error: y"], 1, "2 lines of errors"),
        ([], 1, "0 lines of errors"),
        ([], 130, "exit code 130"),
        ([], -9, "exit code -9"),
        ([], None, "hangs"),
    ],
)
def test_how_a_run_ended_is_judged(lines: list[str], code: int | None, expected: str) -> None:
    problems = judged(run_that_said(lines), code, killed=False)
    assert expected in " ".join(problems)
    assert bool(problems) == bool(expected)
    assert judged(run_that_said([]), -9, killed=True) == []


def test_the_longest_wait_for_a_claim_is_measured() -> None:
    lines = ["a is held by run x (pid 1 on here)", "b (2): 1 of 1 partitions to do", "c is held by run y", "d"]
    assert run_that_said(lines, [1.0, 4.0, 5.0, 6.5]).longest_wait() == 3.0


def test_other_bytes_and_leftovers_are_seen(copied_run: "Made") -> None:
    store = copied_run.job.store
    expected = digests(store)
    assert sorted(expected) == sorted({stage.path for stage in copied_run.plan.stages})
    assert [*differences(expected, digests(store)), *torn(store), *left_over(store)] == []
    path = next(iter(copied_run.plan.learn.values())).path
    shard = next(file for file in Path(store.path(path, "data.zarr", "maps", "c")).rglob("*") if file.is_file())
    shard.write_bytes(shard.read_bytes()[:-1])
    assert any(path in line for line in torn(store))
    Path(store.path(path, "markers", "complete.json")).unlink()
    (line,) = differences(expected, digests(store))
    assert line.startswith(f"{path}: ")
    store.write("manifest/.x.partial", b"")
    with claim(store, path, "someone"):
        left = list(left_over(store))
    assert [line.split(": ")[0] for line in left] == ["manifest/.x.partial", path]


def test_a_table_adds_up() -> None:
    row = {"target": "run", "place": "local", "stage": "report", "survived": False, "identical": True, "waited": 0.0}
    lines = list(table([row, {**row, "identical": False, "waited": 2.5}, {**row, "target": "s3", "survived": True}]))
    assert lines[2:4] == ["| run | local | 2 | 0 | 2 | 1 of 2 | 2.5 s |", "| s3 | local | 1 | 1 | 0 | 1 of 1 | 0.0 s |"]
    assert lines[-1] == "They fell during: report 3."
