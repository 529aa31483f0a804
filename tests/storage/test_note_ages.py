"""How long a note counts, by whose clock, and that no clock's error shortens or prolongs it."""

import json
import os
import socket
import time
from collections.abc import Callable

import pytest

from storage import claims
from storage.claims import StageHeldError, claim
from storage.stores import Store
from tests.storage.conftest import SkewedClock

OURS = f"(pid {os.getpid()} on {socket.gethostname()})"
PATH = "toy/0123"
NOTE = "_claims/toy-0123.json"


@pytest.fixture
def usual(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hearts that beat as they do in earnest."""
    monkeypatch.setattr(claims, "HEARTBEAT", 60.0)
    monkeypatch.setattr(claims, "RENEWAL", 15.0)
    monkeypatch.setattr(claims, "NOTE_POLL", 2.0)


def check_waits(waits: list[float], written: float) -> None:
    """Check that a note written at a real time blocked for one heartbeat, less its age when it was looked at."""
    assert {*waits} == {2.0}
    assert 60.0 - (time.monotonic() - written) <= sum(waits) < 62.0


@pytest.mark.usefixtures("usual")
@pytest.mark.parametrize("left", [b'{"holder": "the dead", "token": "0", "beat": 4}', b"{", b"[]", b"\xff"])
def test_a_note_that_is_not_renewed_blocks_for_one_heartbeat(far: Store, left: bytes) -> None:
    told: list[str] = []
    written = time.monotonic()
    far.write(NOTE, left)
    skewed = SkewedClock()
    with claim(far, PATH, "us", on_wait=told.append, clock=skewed.clock()):
        check_waits(skewed.waits, written)
        assert json.loads(far.read(NOTE))["holder"] == f"us {OURS}"
    assert told == [f"toy-0123 is held by {'the dead' if b'dead' in left else 'another run'}"]
    assert not far.exists(NOTE)


@pytest.fixture
def found_old(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let the note look written some seconds ago, by a clock of the store's that stands still, months off."""
    now = time.time() - 9e6

    def patch(seconds: float) -> None:
        monkeypatch.setattr(Store, "modified", lambda store, path: now - (seconds if path == NOTE else 0.0))

    return patch


@pytest.mark.usefixtures("usual")
@pytest.mark.parametrize("old", [0.0, 10.0, 45.0, 59.0, 60.0, 9e5])
def test_a_note_blocks_until_one_heartbeat_after_its_last_renewal(
    far: Store, old: float, found_old: Callable[[float], None]
) -> None:
    far.write(NOTE, b'{"holder": "the dead", "token": "0"}')
    found_old(old)
    skewed = SkewedClock()
    with claim(far, PATH, "us", clock=skewed.clock()):
        assert max(60.0, old) <= old + sum(skewed.waits) < max(60.0, old) + 2.0


@pytest.mark.usefixtures("usual")
@pytest.mark.parametrize("old", [0.0, 50.0])
def test_each_renewal_counts_for_one_heartbeat(far: Store, old: float, found_old: Callable[[float], None]) -> None:
    def renewal(looks: int) -> None:
        if looks in (4, 20):
            far.write(NOTE, b'{"holder": "the living", "beat": %d}' % looks)

    far.write(NOTE, b'{"holder": "the living"}')
    found_old(old)
    skewed = SkewedClock(meanwhile=renewal)
    with claim(far, PATH, "us", clock=skewed.clock()):
        assert len(skewed.waits) == 20 + 30


@pytest.mark.usefixtures("usual")
def test_a_note_of_the_future_blocks_for_one_heartbeat(far: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's clock was put back by hours since the dead holder wrote."""
    far.write(NOTE, b'{"holder": "the dead", "token": "0"}')
    modified = Store.modified
    monkeypatch.setattr(
        Store, "modified", lambda store, path: modified(store, path) + (18000.0 if path == NOTE else 0.0)
    )
    skewed = SkewedClock()
    with claim(far, PATH, "us", clock=skewed.clock()):
        assert skewed.waits == [2.0] * 30


@pytest.mark.usefixtures("usual")
@pytest.mark.parametrize("hours", [-9.0, 9.0])
def test_a_holder_whose_clock_is_hours_off_holds(far: Store, hours: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what a holder believes the time to be nor what a claimant does shortens or prolongs a claim."""
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: 1.8e9 + 3600 * hours)
        with claim(far, PATH, "the holder", clock=SkewedClock(3600 * hours).clock()):
            patch.undo()
            with pytest.raises(StageHeldError, match="held by the holder"), claim(far, PATH, "us", wait=False):
                pass
            elsewhere = {**json.loads(far.read(NOTE)), "process": "another/pid:[1]/1/1", "beat": 1}
            written = time.monotonic()
            far.write(NOTE, json.dumps(elsewhere).encode())
            skewed = SkewedClock(-3600 * hours)
            with claim(far, PATH, "us", clock=skewed.clock()):
                check_waits(skewed.waits, written)  # it is not renewed any more


@pytest.mark.usefixtures("usual")
@pytest.mark.parametrize("wait", [True, False])
def test_an_old_note_blocks_nobody(far: Store, wait: bool, found_old: Callable[[float], None]) -> None:
    far.write(NOTE, b'{"holder": "the dead", "token": "0"}')
    found_old(60.0)
    skewed = SkewedClock()
    with claim(far, PATH, "us", wait=wait, clock=skewed.clock()):
        assert skewed.waits == []
        assert far.names("_claims") == ["toy-0123.json"]  # nothing is left of looking at the store's clock
    far.write(NOTE, b'{"holder": "the living", "token": "0"}')
    found_old(50.0)
    with pytest.raises(StageHeldError, match="held by the living"), claim(far, PATH, "us", wait=False):
        pass
