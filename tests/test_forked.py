"""The processes that tests kill are real ones, and start from what the server has imported."""

import os
import signal
from pathlib import Path

import pytest

from tests import forked as module
from tests.forked import PRELOADED, ended, forked

pytestmark = pytest.mark.slow  # the server imports torch

STATE: list[str] = []


def tell(place: Path, word: str) -> None:
    """Write what this process is and what it starts from."""
    STATE.append(word)
    loaded = set(PRELOADED[:-1]) <= module.IMPORTED_AFTER
    place.write_text(f"{os.getpid()} {os.getppid() == module.IMPORTED_BY} {loaded} {os.environ['WORD']} {STATE}")


def stop() -> None:
    """Wait for a signal."""
    signal.pause()


def die() -> None:
    """Be killed."""
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> None:
    """End with an exception."""
    raise SystemExit(3)


def test_a_process_has_its_own_memory_and_our_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for word in ("one", "two"):
        monkeypatch.setenv("WORD", word)
        with forked(tell, tmp_path / word, word) as process:
            assert ended(process) == 0
        pid, *rest = (tmp_path / word).read_text().split(" ", 4)
        assert int(pid) == process.pid != os.getpid()
        assert rest == ["True", "True", word, str([word])]
    assert STATE == []


def test_a_process_is_killed_for_real() -> None:
    with forked(die) as process:
        assert ended(process) == -signal.SIGKILL
    with forked(fail) as process:
        assert ended(process) == 3
    with forked(stop) as process:
        assert process.is_alive()
    assert process.exitcode == -signal.SIGKILL
