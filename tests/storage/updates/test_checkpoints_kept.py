"""Which checkpoints a long archive keeps, and in which order it removes the others."""

import pytest

from storage.documents import Document
from storage.updates import archives
from storage.updates.archives import dropped_checkpoints, kept_checkpoints, kept_every


def test_beyond_256_checkpoints_every_second_one_is_kept() -> None:
    assert [kept_every(n) for n in (1, 256, 257, 513, 514, 1027, 1028)] == [1, 1, 2, 2, 4, 4, 8]


@pytest.mark.parametrize("most", [2, 3, 5])
def test_the_kept_checkpoints_are_multiples_and_the_last_two(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(archives, "MOST_CHECKPOINTS", most)
    chain: list[Document] = []
    for number in range(40):
        removed = dropped_checkpoints(chain)
        chain.append({"numbers": {"checkpoint": number}, **({"removed": removed} if removed else {})})
        gone = [name for marker in chain for name in marker.get("removed", ())]
        left = [i for i in range(number + 1) if i not in gone]
        assert len(gone) == len(set(gone))  # each is removed once
        every = kept_every(number + 1)
        assert left == [i for i in range(number + 1) if (i + 1) % every == 0 or i > number - 2]
        assert len(left) == kept_checkpoints(number + 1) <= most + 2
