"""The one thread that renews all notes of a process."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from storage import renewal
from storage.claims import claim
from storage.stores import Store

pytestmark = pytest.mark.usefixtures("quick")

Wait = Callable[[Callable[[], bool]], None]

FORK = """
import json, os, time, warnings
from storage import claims
from storage.claims import claim
from storage.renewal import RENEWER
from storage.stores import open_store
warnings.simplefilter("ignore")  # of threads at a fork, which this is about
claims.RENEWAL = 0.01
store = open_store("memory://bucket/fork", create=True)
with claim(store, "toy/0000", "the parent"):
    pid = os.fork()
    if pid == 0:
        with claim(store, "toy/0001", "the child"):
            first = store.read("_claims/toy-0000.json")
            while json.loads(store.read("_claims/toy-0001.json"))["beat"] < 3:
                time.sleep(0.001)
            os._exit(0 if store.read("_claims/toy-0000.json") == first else 1)
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def renewers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "renewal of claims"]


def beat(store: Store, number: int) -> int:
    return int(json.loads(store.read(f"_claims/toy-{number:04d}.json"))["beat"])


def test_two_hundred_notes_beat_from_one_thread(far: Store, eventually: Wait, monkeypatch: pytest.MonkeyPatch) -> None:
    eventually(lambda: not renewers())
    start, started = threading.Thread.start, list[threading.Thread]()

    def noted(thread: threading.Thread) -> None:
        if threading.current_thread() is threading.main_thread() or thread.name == "renewal of claims":
            started.append(thread)  # those that earlier tests have left may start others
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", noted)
    with ExitStack() as stack:
        for number in range(200):
            stack.enter_context(claim(far, f"toy/{number:04d}", "us"))
        (thread,) = renewers()
        eventually(lambda: all(beat(far, number) >= 3 for number in range(200)))
        reached = [beat(far, number) for number in range(200)]
        eventually(lambda: all(beat(far, number) > reached[number] for number in range(200)))
        assert started == renewers() == [thread]
    eventually(lambda: not thread.is_alive())
    assert far.names("_claims") == []


def test_a_later_claim_has_a_thread_again(far: Store, eventually: Wait) -> None:
    for _ in range(3):
        with claim(far, "toy/0000", "us"):
            eventually(lambda: beat(far, 0) >= 2)
        eventually(lambda: not renewers())


def test_a_note_that_was_taken_over_does_not_end_the_beat_of_others(
    far: Store, eventually: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_all, may_look = Store.read_all, threading.Event()

    def late(store: Store, paths: list[str]) -> dict[str, bytes | Exception]:
        assert may_look.wait(60)
        return read_all(store, paths)

    monkeypatch.setattr(Store, "read_all", late)
    with claim(far, "toy/0000", "us"), claim(far, "toy/0001", "us"):
        far.write("_claims/toy-0000.json", b'{"holder": "usurper", "token": "1", "beat": 7}')
        may_look.set()
        eventually(lambda: beat(far, 1) > 5)
        assert beat(far, 0) == 7


def test_a_note_that_cannot_be_read_is_not_written_and_stays_held(
    far: Store, eventually: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be another's by now; the others do not wait for it."""
    read_all, lost = Store.read_all, threading.Event()

    def shaky(store: Store, paths: list[str]) -> dict[str, bytes | Exception]:
        found = read_all(store, paths)
        return {p: ConnectionError("lost") if lost.is_set() and "0000" in p else raw for p, raw in found.items()}

    monkeypatch.setattr(Store, "read_all", shaky)
    with claim(far, "toy/0000", "us"), claim(far, "toy/0001", "us"):
        lost.set()
        reached = beat(far, 1)
        eventually(lambda: beat(far, 1) > reached + 2)  # what was under way is over
        left = beat(far, 0)
        eventually(lambda: beat(far, 1) > reached + 8)
        assert beat(far, 0) == left
        lost.clear()
        eventually(lambda: beat(far, 0) > left)


def test_the_end_waits_for_a_renewal_under_way(far: Store, eventually: Wait, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it would come after the removal, and a claim record without a process would block others."""
    write_all, begun, may_go_on = Store.write_all, threading.Event(), threading.Event()

    def slow(store: Store, objects: dict[str, bytes]) -> None:
        begun.set()
        assert may_go_on.wait(60)
        write_all(store, objects)

    def release() -> None:
        assert begun.wait(60)
        time.sleep(0.1)
        may_go_on.set()

    monkeypatch.setattr(Store, "write_all", slow)
    monkeypatch.setattr(renewal, "LEAVE", 60.0)
    other = threading.Thread(target=release)
    other.start()
    with claim(far, "toy/0000", "us"):
        assert begun.wait(60)
    assert may_go_on.is_set()
    other.join()
    eventually(lambda: not renewers())
    assert far.names("_claims") == []


def test_a_forked_child_renews_its_own_notes_only() -> None:
    done = subprocess.run([sys.executable, "-c", FORK], timeout=240, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
