"""The journal of a run: its log in the store, what the log must not hold, and the time by kind of stage."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from storage.runs import log_path, records
from storage.stores import Store, StoreError
from tasks.engine import journal as module
from tasks.engine.journal import Journal, JournalObserver
from tasks.engine.records import recorded
from tests.conftest import SilentObserver

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
NewRun = Callable[[Tree], "Run"]


def log_of(store: Store) -> list[str]:
    """Return the lines of the log of the only attempt at the run, without their times."""
    (record,) = records(store, "tiny")
    lines = store.read(log_path("tiny", record.time)).decode().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ ", line) for line in lines)
    return [line[21:] for line in lines]


def test_the_log_has_what_the_terminal_shows_and_the_record_the_times(tiny_tree: Tree, new_run: NewRun) -> None:
    run = new_run(tiny_tree)
    first, second = run.plan.stages[:2]
    terminal = SilentObserver()
    heard: list[str] = []
    with recorded(run.job.store, run.config, [first, second], frozenset({first.path})) as journal:
        journal.also = heard.append
        observer = JournalObserver(terminal, journal)
        for title in (first.title, second.title):
            observer.begin(title, 4, 1)
            observer.end(title, 1.5)
        observer.end(second.title, 2.25)  # a second wave of its kind
        observer.say("s3://user:word@host/x has \x1b[2J")
    assert terminal.titles == [first.title, second.title]
    lines = log_of(run.job.store)
    assert lines[0] == "run tiny: 2 stages, 1 of them complete before"
    assert f"{second.title}: 3 of 4 partitions to do" in lines
    assert f"{second.title}: done in 2.2 s" in lines
    assert lines[-1] == "done"
    (said,) = (line for line in lines if "host" in line)
    assert "word" not in said
    assert "\x1b" not in said
    assert not any("word" in line for line in heard)
    (record,) = records(run.job.store, "tiny")
    assert record.document["timings"] == {second.stage: {"stages": 1, "seconds": 3.75}}  # the first was there before


def test_the_log_of_a_failure_ends_in_its_traceback(tiny_tree: Tree, new_run: NewRun) -> None:
    run = new_run(tiny_tree)
    with pytest.raises(ValueError, match="the reason"), recorded(run.job.store, run.config, run.plan.stages):
        raise ValueError("the reason")
    lines = log_of(run.job.store)
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-1] == "ValueError: the reason"


def test_the_log_is_written_while_the_run_goes_on(
    tiny_tree: Tree, new_run: NewRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(module, "monotonic", lambda: clock[0])
    run = new_run(tiny_tree)
    journal = Journal(run.job.store, "tiny", "now", written=clock[0])
    journal.note("first")
    assert not run.job.store.exists(log_path("tiny", "now"))
    clock[0] += module.WRITE_EVERY + 1
    journal.note("second")
    assert len(run.job.store.read(log_path("tiny", "now")).splitlines()) == 2


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), StoreError("gone")])
def test_a_log_that_cannot_be_written_does_not_end_the_run(
    tiny_tree: Tree, new_run: NewRun, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    run, write = new_run(tiny_tree), Store.write

    def refuse(self: Store, path: str, data: bytes | memoryview) -> None:
        if path.startswith("_logs/"):
            raise fault
        write(self, path, data)

    monkeypatch.setattr(Store, "write", refuse)
    with recorded(run.job.store, run.config, run.plan.stages):
        pass
    (record,) = records(run.job.store, "tiny")
    assert record.document["outcome"] == "done"
