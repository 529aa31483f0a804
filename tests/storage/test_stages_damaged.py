"""What killed writers, crashes and full disks leave of a stage that is not complete, and how it goes on."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from storage.stores import Store, StoreError, open_store
from storage.verify import verify_stage

if TYPE_CHECKING:
    from tests.storage.conftest import Toy

Values = dict[str, NDArray[np.generic]]


def flip(file: Path, index: int) -> None:
    """Invert one byte of a file."""
    raw = file.read_bytes()
    file.write_bytes(raw[:index] + bytes([raw[index] ^ 0xFF]) + raw[index + 1 :])


def test_leftovers_of_a_killed_writer_are_swept(toy: "Toy") -> None:
    toy.write(toy.begin(), 0)
    before = toy.contents()
    for name in ("data.zarr/maps/c/0/0.abc.partial", "markers/.000001.json.0.partial", "files/.x.0.partial"):
        toy.file(name).write_bytes(b"torn")
    toy.begin()
    assert toy.contents() == before


@pytest.mark.parametrize("cut", [0, 1, 30, -1])
def test_a_shard_that_a_crash_has_torn_is_written_again(toy: "Toy", values: Values, cut: int) -> None:
    stage = toy.begin()
    for number in range(3):
        toy.write(stage, number)
    for number in range(3):
        file = toy.file(f"data.zarr/maps/c/{number}/0")
        file.write_bytes(file.read_bytes()[:cut])
        toy.file(f"markers/{number:06d}.json").unlink()
    np.testing.assert_array_equal(toy.make().read("maps"), values["maps"])


def test_damaged_metadata_of_an_incomplete_stage_are_made_again_from_the_layout(toy: "Toy", values: Values) -> None:
    toy.write(toy.begin(), 0)
    file = toy.file("data.zarr/maps/zarr.json")
    intact = file.read_bytes()
    for index in range(0, len(intact), 40):
        flip(file, index)
        toy.begin()
        assert file.read_bytes() == intact
    np.testing.assert_array_equal(toy.make().read("maps"), values["maps"])


def test_a_damaged_group_of_an_incomplete_stage_is_named(toy: "Toy") -> None:
    toy.write(toy.begin(), 0)
    file = toy.file("data.zarr/zarr.json")
    for index in range(0, file.stat().st_size, 7):
        flip(file, index)
        with pytest.raises(StoreError, match=r"remove .*/toy/\w+ and run again$"):
            toy.begin()
        flip(file, index)


@pytest.mark.parametrize("full", ["shard", "marker"])
def test_a_full_disk_leaves_an_incomplete_stage_that_can_be_finished(
    toy: "Toy", tmp_path: Path, toy_of: "Callable[[Store], Toy]", monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    stage = toy.begin()
    toy.write(stage, 0)
    with monkeypatch.context() as patch:
        if full == "shard":
            patch.setattr("zarr.storage._local._put", refuse)
        else:
            patch.setattr(os, "fsync", refuse)
        with pytest.raises(OSError, match="No space left on device"):
            toy.write(stage, 1)
    assert stage.missing() == [1, 2]
    assert not any(name.endswith(".partial") for name in toy.contents())
    toy.make()
    other = toy_of(open_store(str(tmp_path / "other"), create=True))
    other.make()
    assert toy.contents()["markers/complete.json"] == other.contents()["markers/complete.json"]
    assert list(verify_stage(toy.store, toy.spec.path)) == []
