"""Files that end with their checksum: it stands in the partition record in place of a SHA-256."""

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

from storage import checksums
from storage.checksums import CHECKSUM, content_digest, crc32c, is_content, with_checksum, without_checksum
from storage.documents import DamagedError, digest
from storage.verify import verify_stage

if TYPE_CHECKING:
    from tests.storage.conftest import Toy

DIGITS = b"123456789"
PUBLISHED = 0xE3069283  # the check value of CRC-32C, RFC 3720


def test_the_checksum_is_the_published_one(monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.frombuffer(DIGITS, np.uint8)
    assert crc32c(data) == PUBLISHED
    monkeypatch.setattr(checksums, "PIECE", 4)
    assert crc32c(data) == PUBLISHED
    assert crc32c(data[5:], crc32c(data[:5])) == PUBLISHED


def checked(data: bytes) -> bytes:
    """Return bytes and their checksum."""
    return bytes(with_checksum(np.frombuffer(data + bytes(CHECKSUM), np.uint8).copy(), len(data)))


def test_a_record_states_the_checksum_that_a_file_ends_with() -> None:
    whole = checked(DIGITS)
    assert whole == DIGITS + PUBLISHED.to_bytes(4, "little")
    assert content_digest(whole, checked=True) == "crc32c:839206e3"
    assert content_digest(whole, checked=False) == digest(whole)
    assert without_checksum(whole, "it").tobytes() == DIGITS


@pytest.mark.parametrize("size", [0, 1, 9, 5_000])
def test_every_flipped_bit_of_a_checked_file_is_found(size: int) -> None:
    whole = checked(os.urandom(size))
    stated = content_digest(whole, checked=True)
    assert is_content(whole, stated)
    for bit in range(0, 8 * len(whole), max(1, 8 * len(whole) // 500)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        assert not is_content(bytes(data), stated)
        with pytest.raises(DamagedError, match="it: fails its checksum"):
            without_checksum(bytes(data), "it")


@pytest.mark.parametrize("other", [b"", b"123", checked(b"other"), checked(b""), checked(DIGITS)[:-1], DIGITS])
def test_another_whole_file_is_not_the_content(other: bytes) -> None:
    assert not is_content(other, content_digest(checked(DIGITS), checked=True))
    assert not is_content(other, digest(DIGITS + b"0"))
    assert not is_content(other, None)


def test_files_of_both_forms_are_verified(toy: "Toy") -> None:
    stage = toy.begin()
    for number in stage.missing():
        with stage.partition(number) as part:
            start, stop = part.span
            for name, layout in stage.layout.arrays.items():
                part.write(name, np.zeros((stop - start, *layout.shape[1:]), layout.dtype))
            part.write_large(f"large-{number}", checked(b"row %d" % number), checked=True)
            part.write_large(f"plain-{number}", b"row %d" % number)
    finished = stage.seal({})
    assert {name: stated[:7] == "crc32c:" for name, stated in finished.note["files"].items()} == {
        f"{form}-{number}": form == "large" for form in ("large", "plain") for number in range(3)
    }
    assert verify_stage(toy.store, toy.spec.path) == []
    assert finished.read_file("large-1") == checked(b"row 1")
    toy.file("files/large-0").write_bytes(checked(b"row 1"))  # whole, and another's
    toy.file("files/large-2").unlink()
    assert verify_stage(toy.store, toy.spec.path) == [
        f"{toy.spec.path}/files/large-0: expected the content that was written, found other content",
        f"{toy.spec.path}/files/large-2: expected a file of a complete stage, found none",
    ]
