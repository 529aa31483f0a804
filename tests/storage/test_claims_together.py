"""Claims of several stages: what goes out together on a far store, and what is kept while a claimant waits."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from storage.claims import CLAIMS, HEARTBEAT, StageHeldError, claim, claim_all
from storage.stores import CONNECTIONS, Store
from tests.counting import counted
from tests.storage.conftest import SkewedClock

pytestmark = pytest.mark.usefixtures("quick")

Wait = Callable[[Callable[[], bool]], None]

PATHS = [f"toy/{number}" for number in range(5)]
NOTES = [f"toy-{number}.json" for number in range(5)]


@contextmanager
def all_meet(name: str, count: int) -> Iterator[None]:
    """Let each of `count` first calls of a method of `Store` for a claim begin only once all have been made."""
    real, barrier, calls = getattr(Store, name), threading.Barrier(count), list[str]()

    def meeting(store: Store, path: str, *given: object) -> object:
        if path.startswith(CLAIMS):
            calls.append(path)
            if len(calls) <= count:
                barrier.wait(60)
        return real(store, path, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, name, meeting)
        yield
    assert len(calls) >= count


@pytest.mark.parametrize("name", ["read", "write", "remove_object"])
def test_requests_of_several_claims_are_under_way_together(far: Store, name: str) -> None:
    with all_meet(name, len(PATHS)), claim_all(far, PATHS, "us"):
        assert far.names(CLAIMS) == NOTES
    assert far.names(CLAIMS) == []


def test_each_claim_takes_five_requests(far: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.claims.RENEWAL", 600.0)
    paths = [f"toy/{number:03d}" for number in range(2 * CONNECTIONS + 1)]
    with counted() as requests, claim_all(far, paths, "us"):
        assert len(far.names(CLAIMS)) == len(paths)
    counts = {verb: requests.count(verb, CLAIMS) for verb in ("miss", "write", "read", "remove_object")}
    assert counts == {"miss": len(paths), "write": len(paths), "read": 2 * len(paths), "remove_object": len(paths)}
    assert len(requests.seen) == 5 * len(paths) + 1  # and the listing above


def test_more_stages_than_go_out_at_once_are_held_and_renewed(far: Store, eventually: Wait) -> None:
    paths = [f"toy/{number:03d}" for number in range(CONNECTIONS + 3)]
    with claim_all(far, paths, "us"):
        names = far.names(CLAIMS)
        assert len(names) == len(paths)
        for path in paths:
            with pytest.raises(StageHeldError, match="is held by us"), claim(far, path, "other", wait=False):
                pass
        eventually(lambda: beat(far, names[0]) >= 2)
    assert far.names(CLAIMS) == []


def beat(store: Store, name: str) -> int:
    """Return how often a claim record was renewed."""
    return int(json.loads(store.read(f"{CLAIMS}/{name}"))["beat"])


def test_one_record_is_renewed_for_all_that_are_held_together(far: Store, eventually: Wait) -> None:
    """Renewals do not grow with the stages of a run, which may be thousands."""
    with claim_all(far, [f"toy/{number:03d}" for number in range(CONNECTIONS + 3)], "us"):
        names = far.names(CLAIMS)
        with counted() as requests:
            eventually(lambda: requests.count("write") >= 5)
        assert {path for verb, path in requests.seen if verb == "write"} == {f"{CLAIMS}/{names[0]}"}
        assert {path for _, path in requests.seen} == {f"{CLAIMS}/{names[0]}"}
        assert [beat(far, name) for name in names[1:]] == [0] * (len(names) - 1)


def test_a_record_that_is_not_renewed_itself_holds_as_long_as_its_leader(far: Store) -> None:
    """Each look is a heartbeat and more after the one before; the leader of a run elsewhere is renewed meanwhile."""
    leader = {"holder": "one", "token": "1", "process": "another/pid:[1]/1/1"}
    follower = {**leader, "token": "2", "leader": f"{CLAIMS}/{NOTES[0]}", "leader_token": "1", "beat": 0}
    far.write(f"{CLAIMS}/{NOTES[3]}", json.dumps(follower).encode())

    def renewed(looks: int) -> None:
        if looks <= 10:
            far.write(f"{CLAIMS}/{NOTES[0]}", json.dumps({**leader, "beat": looks}).encode())

    renewed(0)
    skewed = SkewedClock(meanwhile=renewed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("storage.claims.NOTE_POLL", 0.75 * HEARTBEAT)
        with claim(far, PATHS[3], "two", clock=skewed.clock()):
            assert len(skewed.waits) == 12  # it is not renewed after the tenth look, and ends a heartbeat later


@pytest.mark.parametrize("found", [None, {"token": "3"}, {"holder": "another"}])
def test_a_record_without_its_leader_counts_by_itself(
    far: Store, found: dict[str, str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its leader was removed, or taken over by another run, and that one is renewed: it says nothing of this record."""
    follower = {"holder": "one", "token": "2", "leader": f"{CLAIMS}/{NOTES[0]}", "leader_token": "1"}
    far.write(f"{CLAIMS}/{NOTES[3]}", json.dumps(follower).encode())
    monkeypatch.setattr("storage.claims.NOTE_POLL", 0.75 * HEARTBEAT)

    def renewed(looks: int) -> None:
        if found is not None:
            far.write(f"{CLAIMS}/{NOTES[0]}", json.dumps({**found, "beat": looks}).encode())

    skewed = SkewedClock(meanwhile=renewed)
    with claim(far, PATHS[3], "two", clock=skewed.clock()):
        assert len(skewed.waits) == 2


@pytest.mark.parametrize(("leader", "waits"), [("", 0), (f"{CLAIMS}/{NOTES[0]}", 2)])
def test_an_old_record_without_its_leader_is_watched_for_a_heartbeat(
    far: Store, monkeypatch: pytest.MonkeyPatch, leader: str, waits: int
) -> None:
    """Its holder may live, and renews it by itself once it knows; a record without a leader was renewed long ago."""
    record = {"holder": "one", "token": "2", **({"leader": leader, "leader_token": "1"} if leader else {})}
    far.write(f"{CLAIMS}/{NOTES[3]}", json.dumps(record).encode())
    monkeypatch.setattr("storage.claims._age", lambda store, path: 10 * HEARTBEAT)
    monkeypatch.setattr("storage.claims.NOTE_POLL", 0.75 * HEARTBEAT)
    skewed = SkewedClock()
    with claim(far, PATHS[3], "two", clock=skewed.clock()):
        assert len(skewed.waits) == waits


@pytest.mark.parametrize("leader", [None, 3, "", "layerlore-store", f"{CLAIMS}/{NOTES[3]}"])
def test_a_record_whose_leader_is_none_of_a_claim_is_old_by_itself(far: Store, leader: object) -> None:
    record = {"holder": "one", "token": "2", "leader": leader, "leader_token": "2"}
    far.write(f"{CLAIMS}/{NOTES[3]}", json.dumps(record).encode())
    with pytest.raises(StageHeldError, match="held by one"), claim(far, PATHS[3], "two", wait=False):
        pass
    skewed = SkewedClock()
    with claim(far, PATHS[3], "two", clock=skewed.clock()):
        assert 0 < sum(skewed.waits) <= HEARTBEAT + 1


def test_records_whose_leader_another_run_took_are_renewed_by_themselves(far: Store, eventually: Wait) -> None:
    usurped = b'{"holder": "usurper", "token": "1", "beat": 7}'

    def take() -> bool:
        far.write(f"{CLAIMS}/{NOTES[0]}", usurped)  # again, where a renewal under way came after it
        return all(beat(far, name) >= 2 for name in NOTES[1:])

    with claim_all(far, PATHS, "us"):
        eventually(take)
        assert all("leader" not in json.loads(far.read(f"{CLAIMS}/{name}")) for name in NOTES[1:])
        assert far.read(f"{CLAIMS}/{NOTES[0]}") == usurped
    assert far.names(CLAIMS) == NOTES[:1]


def test_a_claimant_that_waits_for_the_first_stage_has_another_leader(far: Store, eventually: Wait) -> None:
    """The record that was the first of those that it let go leads nothing."""
    other, told = claim(far, PATHS[0], "the other"), list[str]()
    other.__enter__()

    def leave(text: str) -> None:
        told.append(text)
        other.__exit__(None, None, None)

    with claim_all(far, PATHS, "us", on_wait=leave):
        records = [json.loads(far.read(f"{CLAIMS}/{name}")) for name in NOTES]
        assert "leader" not in records[0]
        assert {record["leader_token"] for record in records[1:]} == {records[0]["token"]}
        eventually(lambda: beat(far, NOTES[0]) >= 2)
    assert len(told) == 1


def test_a_claimant_keeps_earlier_stages_only_while_it_waits(any_store: Store) -> None:
    """Otherwise two that wait for each other would wait for ever."""
    other, events = threading.Event(), list[str]()

    def free(path: str) -> bool:
        with suppress(StageHeldError), claim(any_store, path, "a look", wait=False):
            return True
        return False

    def look(text: str) -> None:
        events.append(text)
        assert [free(path) for path in PATHS] == [False, False, False, True, True]
        other.set()

    held = claim(any_store, PATHS[2], "the other")
    held.__enter__()
    thread = threading.Thread(target=lambda: (other.wait(60), held.__exit__(None, None, None)))
    thread.start()
    with claim_all(any_store, PATHS[::-1], "us", on_wait=look):
        assert not any(free(path) for path in PATHS)
    thread.join(60)
    assert [text.partition(" (pid")[0] for text in events] == ["toy-2 is held by the other"]
    assert all(free(path) for path in PATHS)


def test_a_claimant_that_does_not_wait_keeps_nothing(any_store: Store) -> None:
    with claim(any_store, PATHS[3], "the other"):
        with pytest.raises(StageHeldError, match="toy-3 is held by the other"):
            claim_all(any_store, PATHS, "us", wait=False).__enter__()
        with claim_all(any_store, PATHS[:3], "us", wait=False):
            pass


def test_each_other_holder_is_reported_once(any_store: Store, eventually: Wait) -> None:
    told: list[str] = []
    first, second = claim(any_store, PATHS[0], "one"), claim(any_store, PATHS[3], "two")
    first.__enter__()
    second.__enter__()

    def wait() -> None:
        with claim_all(any_store, PATHS, "us", on_wait=told.append):
            pass

    thread = threading.Thread(target=wait)
    thread.start()
    eventually(lambda: len(told) == 1)
    first.__exit__(None, None, None)
    eventually(lambda: len(told) == 2)
    second.__exit__(None, None, None)
    thread.join(60)
    assert [text.partition(" (pid")[0] for text in told] == ["toy-0 is held by one", "toy-3 is held by two"]


def test_a_stage_lost_to_another_that_writes_at_once_is_waited_for(far: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both see no record; the other's is written after ours. Ours of later stages go until it is gone."""
    write, told, note = Store.write, list[str](), f"{CLAIMS}/{NOTES[1]}"

    def late(store: Store, path: str, data: bytes) -> None:
        write(store, path, data)
        if path == note and not told:
            write(store, path, json.dumps({"holder": "the other", "token": "1"}).encode())

    def leaves(text: str) -> None:
        told.append(text)
        assert far.names(CLAIMS) == NOTES[:2]
        far.remove(note)

    monkeypatch.setattr(Store, "write", late)
    with claim_all(far, PATHS, "us", on_wait=leaves):
        assert far.names(CLAIMS) == NOTES
        assert all(json.loads(far.read(f"{CLAIMS}/{name}"))["holder"].startswith("us (pid ") for name in NOTES)
    assert told == ["toy-1 is held by the other"]
    assert far.names(CLAIMS) == []


def test_a_write_that_fails_leaves_no_claim(far: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Store.write

    def fail(store: Store, path: str, data: bytes) -> None:
        if path.endswith(NOTES[2]):
            raise ConnectionError("lost")
        write(store, path, data)

    monkeypatch.setattr(Store, "write", fail)
    with pytest.raises(ConnectionError, match=r"^lost$"):
        claim_all(far, PATHS, "us").__enter__()
    assert far.names(CLAIMS) == []


def test_claimants_of_the_same_stages_in_other_orders_all_end(any_store: Store) -> None:
    done: list[int] = []

    def work(shift: int) -> None:
        for turn in range(5):
            with claim_all(any_store, [PATHS[(shift + turn + n) % len(PATHS)] for n in range(4)], f"run {shift}"):
                done.append(shift)

    threads = [threading.Thread(target=work, args=(shift,)) for shift in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(done) == [shift for shift in range(3) for _ in range(5)]


def test_no_stage_needs_no_request(any_store: Store) -> None:
    with counted() as requests, claim_all(any_store, [], "us"):
        pass
    assert requests.seen == []
