"""What the harness calls a fault: it must see each kind."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from benchmarks.kills.campaign import DISK, FRUITLESS, LATE, RACE, Campaign, Kill, Setting
from benchmarks.kills.disks import Disk
from benchmarks.kills.moments import REPORT, START, draw, events, kinds, segments
from benchmarks.kills.packing import is_packing
from benchmarks.kills.runs import Commands, Run
from benchmarks.kills.servers import Servers
from benchmarks.kills.table import table
from benchmarks.kills.verdicts import judged
from benchmarks.kills.whole import CLOSE, OPEN, write_section
from storage.stores import Store

SAID = [
    "3 of 3 stages to make, in lore",
    "manifest digits [4fceac6d]: 1 of 1 partitions to do",
    "manifest digits [4fceac6d]: done in 0.1 s",
    "features (2): 2 of 4 partitions to do",
    "features (2): done in 3.2 s",
    "report: lore/reports/tiny/index.html",
]


SETTING = Setting("small", "small.yaml", "here", "serial", ())


@dataclass
class Ended:
    """A process that has ended."""

    code: int = 0
    pid: int = 2**30  # above all that Linux gives, should anybody signal it

    def poll(self) -> int:
        return self.code


@dataclass
class Scripted(Commands):
    """Runs that have ended as it was written down, one after the other; the rest has ended well."""

    folder: Path = Path("nowhere")
    environment: dict[str, str] = field(default_factory=dict)
    ends: Sequence[tuple[int, str]] = ()

    def start(self, *arguments: str) -> Run:
        """Return the next run."""
        self.count += 1
        code, said = self.ends[self.count - 1] if self.count <= len(self.ends) else (0, "done")
        return run_that_said([said], code=code)


def run_that_said(lines: list[str], times: list[float] | None = None, code: int = 0) -> Run:
    """Return a run with an output."""
    moments = times or [float(number) for number in range(1, len(lines) + 1)]
    return Run(Ended(code), Path("nowhere"), 0.0, list(zip(moments, lines, strict=True)))


def campaign_of(target: str, folder: Path, *ends: tuple[int, str]) -> Campaign:
    """Return a campaign whose runs have ended already."""
    commands, servers = Scripted(ends=ends), Servers(folder, {})
    dice, lengths = random.Random(0), {SETTING: {START: 1.0, "a": 1.0, "b": 1.0, REPORT: 1.0}}

    def new_store(name: str) -> str:
        return str(folder / name)

    return Campaign(target, commands, servers, new_store, dice, print, {"small": {}}, lengths)


def test_stages_of_a_run_are_told_by_what_it_says() -> None:
    run = run_that_said(SAID)
    assert events(run) == [(0.0, START), (2.0, "manifest"), (4.0, "features"), (5.0, REPORT)]
    assert kinds(run) == [START, "manifest", "features", REPORT]
    assert kinds(run_that_said(SAID[:4])) == [START, "manifest", "features"]  # the report has not begun
    assert segments(run) == {START: 2.0, "manifest": 2.0, "features": 1.0, REPORT: 1.0}


def test_moments_fall_into_the_stages_that_are_left() -> None:
    lengths = {START: 1.0, "a": 2.0, "b": 3.0, REPORT: 1.0}
    drawn = [draw(random.Random(seed), lengths, {START, "a"}, 1, {}) for seed in range(50)]
    assert {moment.kind for moment in drawn} == {"b", REPORT}
    assert max(moment.delay for moment in drawn if moment.kind == "b") > 2.0
    assert {moment.later for moment in drawn if moment.kind == "b"} == {frozenset({REPORT})}


def test_moments_spread_over_the_rest_of_a_run_and_begin_with_what_was_hit_least() -> None:
    lengths = {str(number): 1.0 for number in range(40)}
    drawn = [int(draw(random.Random(seed), lengths, {"0"}, 9, {}).kind) for seed in range(200)]
    assert (min(drawn), max(drawn)) == (1, 8)  # 39 kinds for 9 kills: every second of 4 and a bit
    assert {draw(random.Random(seed), lengths, {"0"}, 39, {}).kind for seed in range(50)} == {"1", "2", "3"}
    hits = {"1": 2, "2": 1, "3": 2}
    assert {draw(random.Random(seed), lengths, {"0"}, 39, hits).kind for seed in range(20)} == {"2"}


@pytest.mark.parametrize(
    ("lines", "code", "allowed", "expected"),
    [
        ([], 0, {0}, ""),
        (SAID, 0, {0}, ""),
        (["error: no space"], 1, {0, 1}, ""),
        (["error: no space"], 1, {0}, "exit code 1"),  # nothing was hit
        (["error: x"], 0, {0}, "exit code 0 with 1 lines of errors"),
        (["Traceback (most recent call last):", "error: x"], 1, {1}, "noise"),
        (["error: x", "error: y"], 1, {1}, "2 lines of errors"),
        (["error: x", "because of y"], 1, {1}, "goes on after its line of error: ['because of y']"),
        (["Exception ignored in: <function f>"], 0, {0}, "noise"),
        (["Task exception was never retrieved"], 0, {0}, "noise"),
        (["a.py:3: UserWarning: x"], 0, {0}, "noise"),
        (["2026-01-01 - distributed.worker - WARNING - x"], -9, {-9}, "noise"),
        ([], 1, {1}, "0 lines of errors"),
        ([], 130, {0, 1}, "exit code 130"),
        ([], -9, {0, 1}, "exit code -9"),
        ([], -9, {-9}, ""),
        ([], None, {0}, "hangs"),
    ],
)
def test_how_a_run_ended_is_judged(lines: list[str], code: int | None, allowed: set[int], expected: str) -> None:
    problems = judged(run_that_said(lines), code, allowed)
    assert expected in " ".join(problems)
    assert bool(problems) == bool(expected)


def test_the_longest_wait_for_a_claim_is_measured() -> None:
    lines = ["a is held by run x (pid 1 on here)", "b (2): 1 of 1 partitions to do", "c is held by run y", "d"]
    assert run_that_said(lines, [1.0, 4.0, 5.0, 6.5]).longest_wait() == 3.0


def test_a_table_adds_up() -> None:
    facts = {"target": "run", "place": "local", "stage": "report", "config": "small", "survived": False, "waited": 0.0}
    row = {**facts, "same_bytes": True, "problems": []}
    noisy, other = {**row, "problems": ["noise"]}, {**row, "same_bytes": False, "problems": ["other"], "waited": 2.5}
    lines = list(table([row, noisy, other, {**row, "target": "s3", "survived": True}]))
    assert lines[2] == "| run | local | 3 | 0 | 3 | 2 of 3 | 1 of 3 | 2.5 s |"
    assert lines[3] == "| S3 server | local | 1 | 1 | 0 | 1 of 1 | 1 of 1 | 0.0 s |"
    assert lines[-3:] == ["They fell during: `report` 4.", "", "Their configs were: `small` 4."]


def test_a_run_that_fails_undisturbed_is_a_problem_at_once(tmp_path: Path) -> None:
    campaign = campaign_of("prefect", tmp_path, (1, "error: x"))
    hits, code, problems = campaign.attempt(SETTING, Store(str(tmp_path / "s")), [], 3, {})
    assert (hits, code, len(problems)) == ([], 1, 1)
    assert "exit code 1" in problems[0]
    campaign = campaign_of(RACE, tmp_path, (1, "error: x"), (1, "error: x"))
    (kill,) = campaign.round(SETTING, Store(str(tmp_path / "s")), 1)
    assert len([text for text in kill.problems if "exit code 1" in text]) == 2
    assert kill.same_bytes  # nothing was expected, and nothing is there
    assert campaign.commands.count == 3  # both of them and `verify`: no further try


@pytest.mark.parametrize("ends", [((1, "error: x"), (0, "y")), ((0, "y"), (1, "error: x"))])
def test_a_race_goes_on_where_both_do(ends: tuple[tuple[int, str], ...], tmp_path: Path) -> None:
    (kill,) = campaign_of(RACE, tmp_path, *ends).round(SETTING, Store(str(tmp_path / "s")), 1)
    assert (kill.survived, kill.said) == (False, "error: x")
    (kill,) = campaign_of(RACE, tmp_path).round(SETTING, Store(str(tmp_path / "s")), 1)
    assert (kill.survived, kill.said, kill.problems) == (True, "", [])


def test_runs_that_end_before_their_moment_are_made_again_but_not_for_ever(tmp_path: Path) -> None:
    campaign = campaign_of("run", tmp_path)
    with pytest.raises(AssertionError, match="5 runs in a row had ended before their moment"):
        next(campaign.run([SETTING], 1))
    assert campaign.commands.count == 2 * FRUITLESS  # each with a `verify`
    assert campaign.kill(SETTING, run_that_said(["y"])) is None  # it had ended when the kill came


def test_a_campaign_can_aim(tmp_path: Path) -> None:
    campaign = campaign_of("run", tmp_path)
    assert drawn_of(campaign, []) == {START, "a", "b"}
    campaign.aim = frozenset({"b"})
    assert drawn_of(campaign, []) == {"b"}
    campaign.aim = frozenset({"a"})
    begun = ["1 of 9 stages to make, in lore", "a: 1 of 1 partitions to do", "b: 1 of 1 partitions to do"]
    assert drawn_of(campaign, begun[:2]) == {"a"}  # it may be hit again
    assert drawn_of(campaign, begun) == {None}  # a run that is not hit gets through


def drawn_of(campaign: Campaign, lines: list[str]) -> set[str | None]:
    """Return the kinds of the moments that are drawn for a run that has said something."""
    drawn = [campaign.moment(SETTING, [run_that_said(lines)], 9) for _ in range(50)]
    return {None if moment is None else moment.kind for moment in drawn}


def test_kills_of_servers_may_end_a_run_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hit(*_: object) -> Kill:
        return Kill("s3", "here", "small", "serial", "standing", "a")

    moments = iter([True, True, False])
    monkeypatch.setattr("benchmarks.kills.campaign.reach", lambda *_: next(moments))
    campaign = campaign_of("s3", tmp_path, (1, "error: s3://b is away"))
    monkeypatch.setattr(campaign, "kill", hit)
    hits, code, problems = campaign.attempt(SETTING, Store(str(tmp_path / "s")), [], 3, {})
    assert (code, problems) == (1, [])
    assert [(kill.survived, kill.said) for kill in hits] == [(True, ""), (False, "error: s3://b is away")]


def test_a_run_is_overtaken_while_it_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, done = Store(str(tmp_path / "s")), list[str]()
    store.write("_claims/a.lock", b"")
    campaign = campaign_of(LATE, tmp_path, (0, "y"), (0, "other"))

    def pause(run: Run) -> bool:
        done.append("stopped")
        return True

    monkeypatch.setattr("benchmarks.kills.campaign.reach", lambda *_: True)
    monkeypatch.setattr(Run, "pause", pause)
    monkeypatch.setattr(Run, "go_on", lambda _: done.append(f"goes on after {campaign.commands.count} runs"))
    (kill,) = campaign.round(SETTING, store, 1)
    assert done == ["stopped", "goes on after 2 runs"]
    assert (kill.survived, kill.problems, kill.target) == (True, [], LATE)
    assert store.names("_claims") == []  # no lock holds the other run back
    for ends in ([(0, "y"), (1, "error: x")], [(1, "error: x"), (0, "y")]):  # of either
        campaign = campaign_of(LATE, tmp_path, *ends)
        (kill,) = campaign.round(SETTING, store, 1)
        assert (kill.survived, kill.said) == (False, "error: x")


def test_moments_fall_while_records_are_packed(tmp_path: Path) -> None:
    campaign = campaign_of("run", tmp_path)
    campaign.commands.packing = 0.5
    drawn = [campaign.moment(SETTING, [run_that_said([])], 9) for _ in range(100)]
    delays = [moment.packing for moment in drawn if moment is not None and moment.packing is not None]
    assert 60 < len(delays) < 100
    assert 0.0 <= min(delays) < 1.0 < 2.5 < max(delays) <= 3.5  # seven pauses
    run = run_that_said([])
    run.log = tmp_path / "command-1"
    assert not run.packs()
    (tmp_path / "command-1.packing").touch()
    assert run.packs()


def test_records_that_are_being_packed_are_seen(tmp_path: Path) -> None:
    store, folder = Store(str(tmp_path / "s")), "toy/00000000000000000000/markers"
    assert not is_packing(store)
    store.write(f"{folder}/000000.json", b"{}")
    assert not is_packing(store)
    Path(store.path(folder), ".partitions-000000.json.1.partial").write_bytes(b"{")
    assert is_packing(store)
    store.write(f"{folder}/partitions-000000.json", b"{}")
    assert is_packing(store)
    store.write(f"{folder}/complete.json", b"{}")
    assert not is_packing(store)


def test_a_disk_fills_and_has_room_when_the_run_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(Disk, "fill", lambda self: done.append("full"))
    monkeypatch.setattr(Disk, "make_room", lambda self: done.append("room"))
    monkeypatch.setattr("benchmarks.kills.campaign.reach", lambda *_: True)
    ends = ((1, "error: x: No space left on device"), (1, "error: of another kind"))
    campaign = campaign_of(DISK, tmp_path, *ends)
    campaign.disk = Disk(tmp_path)
    for expected in ([], ["said 'error: of another kind'"]):
        hits, code, problems = campaign.attempt(SETTING, Store(str(tmp_path / "s")), [], 3, {})
        assert (code, problems, [kill.survived for kill in hits]) == (1, expected, [False])
    assert done == ["full", "room"] * 2
    assert campaign.hits == {START: 2}


def test_a_page_gets_the_table_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{OPEN}\nold\n{CLOSE}\nafter\n")
    write_section(page, "new | \\1")
    assert page.read_text() == f"before\n{OPEN}\nnew | \\1\n{CLOSE}\nafter\n"
    page.write_text("before\n")
    with pytest.raises(ValueError, match="expected the lines"):
        write_section(page, "new")
