"""Workers are forked in a program with one run only: the command line, and no notebook."""

from pathlib import Path

import pytest

from flows.command import Manner, answer
from flows.notebook import run_config


class ReachedError(Exception):
    """The run has come to where it starts Prefect."""


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the runs that load libraries ahead; each ends before it starts Prefect."""
    found = list[str]()

    def stop() -> None:
        raise ReachedError

    monkeypatch.setattr("flows.command.load_ahead", lambda config: found.append(config.name))
    monkeypatch.setattr("flows.command._starting_prefect", stop)
    return found


def test_a_notebook_spawns_its_workers(loaded: list[str], tmp_path: Path) -> None:
    with pytest.raises(ReachedError):
        run_config("digits", [f"store={tmp_path}"])
    assert loaded == []


def test_a_command_with_one_run_may_fork_them(loaded: list[str], tmp_path: Path) -> None:
    with pytest.raises(ReachedError):
        answer("digits", [f"store={tmp_path}"], Manner(alone=True), lambda _: None)
    assert loaded == ["digits"]
