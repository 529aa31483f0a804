"""Claims of either kind, and those on a local disk; notes on S3 are in test_notes.py and test_note_ages.py."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.claims import StageHeldError, claim
from storage.stores import Store

pytestmark = pytest.mark.usefixtures("quick")

Wait = Callable[[Callable[[], bool]], None]

OURS = f"(pid {os.getpid()} on {socket.gethostname()})"
PATH = "toy/0123"

HOLD = """
import sys, time
from storage.claims import claim
from storage.stores import Store
with claim(Store(sys.argv[1]), "toy/0123", "run far away"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_claimant_that_does_not_wait_is_told_who_holds(any_store: Store) -> None:
    with claim(any_store, PATH, "run one"):
        for _ in range(2):
            with (
                pytest.raises(StageHeldError) as caught,
                claim(any_store, PATH, "run two", wait=False),
            ):
                pass
            assert str(caught.value) == f"toy-0123 is held by run one {OURS}"
    with claim(any_store, PATH, "run two", wait=False):
        pass


def test_claims_of_other_stages_do_not_meet(any_store: Store) -> None:
    with claim(any_store, PATH, "one"), claim(any_store, "toy/4567", "two", wait=False):
        pass


def test_a_claim_ends_with_an_exception(any_store: Store) -> None:
    with pytest.raises(RuntimeError, match="no luck"), claim(any_store, PATH, "one"):
        raise RuntimeError("no luck")
    with claim(any_store, PATH, "two", wait=False):
        pass


def test_one_that_waits_is_told_once_and_goes_on_after_the_other(any_store: Store, eventually: Wait) -> None:
    told: list[str] = []
    events: list[str] = []

    def second() -> None:
        with claim(any_store, PATH, "run two", on_wait=told.append):
            events.append("second")

    thread = threading.Thread(target=second)
    with claim(any_store, PATH, "run one"):
        thread.start()
        eventually(lambda: bool(told))
        time.sleep(0.1)  # many polls
        events.append("first")
    thread.join(60)
    assert events == ["first", "second"]
    assert told == [f"toy-0123 is held by run one {OURS}"]


def test_a_claim_takes_no_notice_of_waiting_unless_asked(store: Store) -> None:
    done = threading.Event()

    def second() -> None:
        with claim(store, PATH, "run two"):
            done.set()

    with claim(store, PATH, "run one"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.05)
        assert not done.is_set()
    thread.join(60)
    assert done.is_set()


def test_a_killed_process_frees_its_lock(store: Store) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, store.url], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == b"held\n"
            text = rf"^toy-0123 is held by run far away \(pid {other.pid} on "
            with pytest.raises(StageHeldError, match=text), claim(store, PATH, "us", wait=False):
                pass
        finally:
            other.send_signal(signal.SIGKILL)
            other.wait()
    with claim(store, PATH, "us", wait=False):
        assert Path(store.path("_claims/toy-0123.lock")).read_text() == f"us {OURS}"


def test_a_lock_file_removed_before_it_is_locked_is_made_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path(store.path("_claims/toy-0123.lock"))
    flock, times = fcntl.flock, []

    def remove_first(descriptor: int, operation: int) -> None:
        times.append(operation)
        if len(times) == 1:
            file.unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with claim(store, PATH, "us"):
        assert len(times) == 2
        assert file.read_text() == f"us {OURS}"
        with pytest.raises(StageHeldError), claim(store, PATH, "others", wait=False):
            pass


def test_an_unnamed_holder_is_another_run(store: Store) -> None:
    with claim(store, PATH, "us"):
        Path(store.path("_claims/toy-0123.lock")).write_text("")
        with pytest.raises(StageHeldError, match=r"is held by another run$"), claim(store, PATH, "x", wait=False):
            pass
