"""Claims where there are no locks: notes, and whose they are; how long one counts is in test_note_ages.py."""

import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from storage import claims
from storage.claims import StageHeldError, claim
from storage.processes import process_identity
from storage.stores import Store, StoreError
from tests.storage.conftest import SkewedClock

pytestmark = pytest.mark.usefixtures("quick")

Wait = Callable[[Callable[[], bool]], None]

OURS = f"(pid {os.getpid()} on {socket.gethostname()})"
PATH = "toy/0123"
NOTE = "_claims/toy-0123.json"


def note(store: Store) -> dict[str, object]:
    found: dict[str, object] = json.loads(store.read(NOTE))
    return found


def renewers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "renewal of claims"]


def test_a_note_is_renewed_and_removed_at_the_end(far: Store, eventually: Wait) -> None:
    with claim(far, PATH, "us"):
        first = note(far)
        assert first["holder"] == f"us {OURS}"
        eventually(lambda: int(str(note(far)["beat"])) >= 3)
        assert note(far)["token"] == first["token"]
    assert not far.exists(NOTE)


def test_a_living_note_is_not_taken_over(far: Store, eventually: Wait, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look finds it renewed, and finds more than half a heartbeat gone since the look before."""
    monkeypatch.setattr(claims, "NOTE_POLL", 0.75 * claims.HEARTBEAT)
    holder = ExitStack()

    def renewed(looks: int) -> None:
        before = note(far)
        eventually(lambda: note(far) != before)
        if looks == 10:
            holder.close()

    holder.enter_context(claim(far, PATH, "one"))
    skewed = SkewedClock(meanwhile=renewed)
    with claim(far, PATH, "two", clock=skewed.clock()):
        assert len(skewed.waits) == 10


def test_the_note_of_a_killed_process_of_this_machine_blocks_nobody(far: Store, eventually: Wait) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        identity = process_identity(other.pid)
        far.write(NOTE, json.dumps({"holder": "run y", "process": identity}).encode())
        with pytest.raises(StageHeldError, match="held by run y"), claim(far, PATH, "us", wait=False):
            pass
        other.kill()
        eventually(
            lambda: process_identity(other.pid) != identity
        )  # it has ended, though its parent has not waited for it
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


def test_a_holder_taken_for_dead_does_not_write_over_the_other(
    far: Store, eventually: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_all, may_look, usurped = Store.read_all, threading.Event(), b'{"holder": "usurper", "token": "1"}'

    def late(store: Store, paths: list[str]) -> dict[str, bytes | Exception]:
        assert may_look.wait(60)
        return read_all(store, paths)

    monkeypatch.setattr(Store, "read_all", late)
    with claim(far, PATH, "us"):
        far.write(NOTE, usurped)
        may_look.set()
        eventually(lambda: not renewers())  # it has seen that nothing is left to renew
        assert far.read(NOTE) == usurped
    assert far.read(NOTE) == usurped


def test_a_store_that_is_gone_at_the_end_hides_no_error(far: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(store: Store, path: str) -> bytes:
        raise StoreError("s3://bucket/x: gone")

    def stop() -> None:
        monkeypatch.setattr(Store, "read", lost)
        raise RuntimeError("the reason")

    with pytest.raises(RuntimeError, match="the reason"), claim(far, PATH, "us"):
        stop()


def test_a_note_of_another_is_left_in_place(far: Store, monkeypatch: pytest.MonkeyPatch, eventually: Wait) -> None:
    monkeypatch.setattr(claims, "RENEWAL", 60.0)
    with claim(far, PATH, "us"):
        eventually(lambda: note(far)["beat"] == 0)
        far.write(NOTE, b'{"holder": "usurper", "token": "1"}')
    assert note(far) == {"holder": "usurper", "token": "1"}


def test_a_note_removed_by_others_is_no_fault(far: Store, monkeypatch: pytest.MonkeyPatch, eventually: Wait) -> None:
    monkeypatch.setattr(claims, "RENEWAL", 60.0)
    with claim(far, PATH, "us"):
        eventually(lambda: note(far)["beat"] == 0)
        far.remove(NOTE)
    assert not far.exists(NOTE)


@pytest.mark.parametrize("asked", ["read_all", "write_all"])
def test_a_passing_fault_does_not_end_the_heartbeat(
    far: Store, eventually: Wait, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    ask, calls = getattr(Store, asked), list[object]()

    def shaky(store: Store, what: object) -> object:
        calls.append(what)
        if len(calls) <= 3:
            raise ConnectionError("lost")
        return ask(store, what)

    monkeypatch.setattr(Store, asked, shaky)
    with claim(far, PATH, "us"):
        eventually(lambda: int(str(note(far)["beat"])) >= 6)
        assert len(calls) >= 6
    assert not far.exists(NOTE)
