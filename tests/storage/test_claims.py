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
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from storage import claims
from storage.claims import Clock, StageHeldError, claim, process_identity
from storage.stores import Store, StoreError, open_store

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
    monkeypatch.setattr(claims, "RENEWAL", 0.02)
    monkeypatch.setattr(claims, "HEARTBEAT", 0.3)
    monkeypatch.setattr(claims, "POLL", 0.005)
    monkeypatch.setattr(claims, "NOTE_POLL", 0.005)


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
        time.sleep(0.6)  # twice HEARTBEAT
        assert not taken.is_set()
    thread.join(10)
    assert taken.is_set()


@dataclass
class SkewedClock:
    """A clock that is an hour off; waiting for it takes no time, and `meanwhile` happens at each wait."""

    seconds: float = 3600.0
    waits: list[float] = field(default_factory=list)
    meanwhile: Callable[[int], None] = lambda _: None

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.seconds += seconds
        self.meanwhile(len(self.waits))

    def clock(self) -> Clock:
        return Clock(lambda: self.seconds, self.sleep)


@pytest.fixture
def usual(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hearts that beat as they do in earnest."""
    monkeypatch.setattr(claims, "HEARTBEAT", 60.0)
    monkeypatch.setattr(claims, "RENEWAL", 15.0)
    monkeypatch.setattr(claims, "NOTE_POLL", 2.0)


@pytest.mark.usefixtures("usual")
@pytest.mark.parametrize("left", [b'{"holder": "the dead", "token": "0", "beat": 4}', b"{", b"[]", b"\xff"])
def test_a_note_that_is_not_renewed_blocks_for_one_heartbeat(far: Store, left: bytes) -> None:
    told: list[str] = []
    far.write(NOTE, left)
    skewed = SkewedClock()
    with claim(far, PATH, "us", on_wait=told.append, clock=skewed.clock()):
        assert skewed.waits == [2.0] * 30
        assert note(far)["holder"] == f"us {OURS}"
    assert told == [f"toy-0123 is held by {'the dead' if b'dead' in left else 'another run'}"]
    assert not far.exists(NOTE)


@pytest.mark.usefixtures("usual")
def test_each_renewal_counts_for_one_heartbeat(far: Store) -> None:
    def renewal(looks: int) -> None:
        if looks in (20, 45):
            far.write(NOTE, b'{"holder": "the living", "beat": %d}' % looks)

    far.write(NOTE, b'{"holder": "the living"}')
    skewed = SkewedClock(meanwhile=renewal)
    with claim(far, PATH, "us", clock=skewed.clock()):
        assert len(skewed.waits) == 45 + 30


@pytest.mark.usefixtures("usual")
@pytest.mark.parametrize("wait", [True, False])
def test_an_old_note_blocks_nobody(far: Store, wait: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    far.write(NOTE, b'{"holder": "the dead", "token": "0"}')
    modified, old = Store.modified, 60.0

    def aged(store: Store, path: str) -> float:
        return modified(store, path) - (old if path == NOTE else 0.0) - 9e6  # the store's clock is months off

    monkeypatch.setattr(Store, "modified", aged)
    skewed = SkewedClock()
    with claim(far, PATH, "us", wait=wait, clock=skewed.clock()):
        assert skewed.waits == []
        assert far.names("_claims") == ["toy-0123.json"]  # nothing is left of looking at the store's clock
    far.write(NOTE, b'{"holder": "the living", "token": "0"}')
    old = 50.0
    with pytest.raises(StageHeldError, match="held by the living"), claim(far, PATH, "us", wait=False):
        pass


def test_the_note_of_a_killed_process_of_this_machine_blocks_nobody(far: Store) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        identity = process_identity(other.pid)
        far.write(NOTE, json.dumps({"holder": "run y", "process": identity}).encode())
        with pytest.raises(StageHeldError, match="held by run y"), claim(far, PATH, "us", wait=False):
            pass
        other.kill()
        eventually(lambda: process_identity(other.pid) != identity)  # it has ended, though nobody has asked for it
        with claim(far, PATH, "us", wait=False):
            pass
    far.write(NOTE, json.dumps({"holder": "run y", "process": identity}).encode())
    with claim(far, PATH, "us", wait=False):
        assert note(far)["process"] == process_identity(os.getpid())


@pytest.mark.parametrize("change", ["machine", "table of processes"])
def test_a_process_elsewhere_is_not_looked_for_here(far: Store, change: str) -> None:
    boot, table, _, started = process_identity(os.getpid()).split("/")
    boot, table = ("another", table) if change == "machine" else (boot, "pid:[1]")
    far.write(NOTE, json.dumps({"holder": "run y", "process": f"{boot}/{table}/999999999/{started}"}).encode())
    with pytest.raises(StageHeldError), claim(far, PATH, "us", wait=False):
        pass


def test_a_process_that_took_the_number_of_a_dead_one_is_not_it(far: Store) -> None:
    identity = process_identity(os.getpid()).rpartition("/")[0] + "/1"
    far.write(NOTE, json.dumps({"holder": "run y", "process": identity}).encode())
    with claim(far, PATH, "us", wait=False):
        pass


def test_of_two_that_write_at_once_the_later_one_holds(far: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both see no note; the other's is written after ours, and ours waits for it."""
    write, told = Store.write, list[str]()

    def late(store: Store, path: str, data: bytes) -> None:
        write(store, path, data)
        if path == NOTE and not told:
            write(store, path, json.dumps({"holder": "the other", "token": "1"}).encode())

    def leaves(text: str) -> None:
        told.append(text)
        far.remove(NOTE)

    monkeypatch.setattr(Store, "write", late)
    with claim(far, PATH, "us", on_wait=leaves):
        assert note(far)["holder"] == f"us {OURS}"
    assert told == ["toy-0123 is held by the other"]


def test_a_holder_taken_for_dead_does_not_write_over_the_other(far: Store) -> None:
    with claim(far, PATH, "us"):
        far.write(NOTE, b'{"holder": "usurper", "token": "1"}')
        time.sleep(0.2)  # ten renewals
        assert note(far) == {"holder": "usurper", "token": "1"}
    assert note(far) == {"holder": "usurper", "token": "1"}


def test_a_store_that_is_gone_at_the_end_hides_no_error(far: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(store: Store, path: str) -> bytes:
        raise StoreError("s3://bucket/x: gone")

    def stop() -> None:
        monkeypatch.setattr(Store, "read", lost)
        raise RuntimeError("the reason")

    with pytest.raises(RuntimeError, match="the reason"), claim(far, PATH, "us"):
        stop()


def test_a_note_of_another_is_left_in_place(far: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "RENEWAL", 60.0)
    with claim(far, PATH, "us"):
        eventually(lambda: note(far)["beat"] == 0)
        far.write(NOTE, b'{"holder": "usurper", "token": "1"}')
    assert note(far) == {"holder": "usurper", "token": "1"}


def test_a_note_removed_by_others_is_no_fault(far: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "RENEWAL", 60.0)
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
