"""What observers show of a run: exact lines, and bars that survive a retry."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.progress import Progress

from tasks.engine import observers
from tasks.engine.observers import BarObserver, LineObserver, terminal_observer


def test_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(observers, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    stream = io.StringIO()
    observer = LineObserver(stream)
    observer.begin("stage [a]", 5, 2)
    observer.advance("stage [a]")
    clock[0] += 11
    observer.advance("stage [a]")
    clock[0] += 9
    observer.advance("stage [a]")
    observer.end("stage [a]", 1.25)
    observer.say("something")
    assert stream.getvalue().splitlines() == [
        "stage [a]: 3 of 5 partitions to do",
        "stage [a]: 4 of 5",
        "stage [a]: done in 1.2 s",
        "something",
    ]


def test_bars_show_titles_as_they_are_and_go_on_after_a_retry() -> None:
    stream = io.StringIO()
    progress = Progress(console=Console(file=stream, width=120, force_terminal=False), auto_refresh=False)
    observer = BarObserver(progress)
    observer.begin("features [red]x[/red]", 4, 0)
    observer.advance("features [red]x[/red]")
    observer.begin("features [red]x[/red]", 4, 1)
    observer.advance("features [red]x[/red]")
    (task,) = progress.tasks
    assert (task.completed, task.total) == (2, 4)
    observer.end("features [red]x[/red]", 1.0)
    assert task.finished_time is not None or task.stop_time is not None
    observer.say("[bold]literal[/bold]")
    assert stream.getvalue() == "[bold]literal[/bold]\n"


def test_lines_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    with terminal_observer(stream) as observer:
        assert isinstance(observer, LineObserver)


def test_bars_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    with terminal_observer(stream) as observer:
        assert isinstance(observer, BarObserver)
        observer.begin("stage [key]", 2, 1)
        observer.advance("stage [key]")
        observer.end("stage [key]", 0.1)
    assert "stage [key]" in stream.getvalue()
    assert "2/2" in stream.getvalue()
