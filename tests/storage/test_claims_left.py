"""Claims that outlive their block, and many at once."""

import resource
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from storage import claims
from storage.claims import Clock, StageHeldError, claim, make_room
from storage.stores import Store


@pytest.fixture
def few_files() -> Iterator[int]:
    """Let this process have few files open, and return how many."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    yield 256
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_more_stages_than_open_files_are_held_at_once(store: Store, few_files: int) -> None:
    make_room(2 * few_files)
    with ExitStack() as held:
        for number in range(2 * few_files):
            held.enter_context(claim(store, f"toy/{number}", "a test"))
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 3 * few_files


def test_room_is_never_taken_away(few_files: int) -> None:
    make_room(few_files)
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    make_room(0)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == allowed


def test_a_note_that_we_could_not_take_away_does_not_block_us(far: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(store: Store, path: str) -> None:
        raise OSError("away")

    with monkeypatch.context() as patch, claim(far, "toy/1", "a test"):
        patch.setattr(Store, "remove_object", away)
    assert far.names(claims.CLAIMS) == ["toy-1.json"]
    with claim(far, "toy/1", "a test", wait=False):
        pass
    assert far.names(claims.CLAIMS) == []


def test_a_note_that_we_hold_blocks_us_too(far: Store) -> None:
    with (
        claim(far, "toy/1", "a test"),
        pytest.raises(StageHeldError, match="toy-1 is held by a test"),
        claim(far, "toy/1", "another", wait=False, clock=Clock(sleep=lambda _: pytest.fail("waited"))),
    ):
        pass
