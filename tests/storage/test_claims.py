import fcntl
import json
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

from storage import claims
from storage.claims import StageHeldError, claim
from storage.stores import Store, open_store

OURS = f"(pid {os.getpid()} on {socket.gethostname()})"
PATH = "toy/0123"
NOTE = "_claims/toy-0123.json"

HOLD = """
import sys, time
from storage.claims import claim
from storage.stores import Store
with claim(Store(sys.argv[1]), "toy/0123", "run far away"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let hearts beat fast."""
    monkeypatch.setattr(claims, "HEARTBEAT", 0.02)
    monkeypatch.setattr(claims, "STALE", 0.3)
    monkeypatch.setattr(claims, "POLL", 0.005)


@pytest.fixture
def far(tmp_path: Path) -> Store:
    """A store that is not local, as on S3."""
    return open_store(f"memory://bucket/{tmp_path.name}", create=True)


@pytest.fixture(params=["local", "far"])
def any_store(request: pytest.FixtureRequest) -> Store:
    found: Store = request.getfixturevalue("store" if request.param == "local" else "far")
    return found


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something holds, 10 seconds at most."""
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.002)


def note(store: Store) -> dict[str, object]:
    found: dict[str, object] = json.loads(store.read(NOTE))
    return found


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


def test_one_that_waits_is_told_once_and_goes_on_after_the_other(any_store: Store) -> None:
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
    thread.join(10)
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
    thread.join(10)
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


def test_a_note_is_renewed_and_removed_at_the_end(far: Store) -> None:
    with claim(far, PATH, "us"):
        first = note(far)
        assert first["holder"] == f"us {OURS}"
        eventually(lambda: int(str(note(far)["beat"])) >= 3)
        assert note(far)["token"] == first["token"]
    assert not far.exists(NOTE)


def test_a_living_note_is_not_taken_over(far: Store) -> None:
    taken = threading.Event()

    def second() -> None:
        with claim(far, PATH, "two"):
            taken.set()

    with claim(far, PATH, "one"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.6)  # twice STALE
        assert not taken.is_set()
    thread.join(10)
    assert taken.is_set()


@pytest.mark.parametrize("left", [b'{"holder": "the dead", "token": "0", "beat": 4}', b"{", b"[]", b"\xff"])
def test_a_note_that_stopped_changing_is_taken_over(far: Store, left: bytes) -> None:
    told: list[str] = []
    far.write(NOTE, left)
    started = time.monotonic()
    with claim(far, PATH, "us", on_wait=told.append):
        assert time.monotonic() - started > 0.3
        assert note(far)["holder"] == f"us {OURS}"
    assert told == [f"toy-0123 is held by {'the dead' if b'dead' in left else 'another run'}"]
    assert not far.exists(NOTE)


def test_a_note_of_another_is_left_in_place(far: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT", 60.0)
    with claim(far, PATH, "us"):
        eventually(lambda: note(far)["beat"] == 0)
        far.write(NOTE, b'{"holder": "usurper", "token": "1"}')
    assert note(far) == {"holder": "usurper", "token": "1"}


def test_a_note_removed_by_others_is_no_fault(far: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT", 60.0)
    with claim(far, PATH, "us"):
        eventually(lambda: note(far)["beat"] == 0)
        far.remove(NOTE)
    assert not far.exists(NOTE)


def test_a_passing_fault_does_not_end_the_heartbeat(far: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write, calls = Store.write, []

    def shaky(self: Store, path: str, data: bytes) -> None:
        calls.append(path)
        if 2 <= len(calls) <= 4:
            raise ConnectionError("lost")
        write(self, path, data)

    monkeypatch.setattr(Store, "write", shaky)
    with claim(far, PATH, "us"):
        eventually(lambda: int(str(note(far)["beat"])) >= 4)
    assert not far.exists(NOTE)
