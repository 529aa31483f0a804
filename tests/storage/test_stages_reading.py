"""What a finished stage refuses to read."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from zarr.storage import LocalStore

from storage.documents import DamagedError
from storage.stages import open_finished
from storage.stores import Store, open_store

if TYPE_CHECKING:
    from tests.storage.conftest import Toy

Values = dict[str, NDArray[np.generic]]


def flip(file: Path, index: int) -> None:
    """Invert one byte of a file."""
    raw = file.read_bytes()
    file.write_bytes(raw[:index] + bytes([raw[index] ^ 0xFF]) + raw[index + 1 :])


@pytest.fixture(params=["local", "memory"])
def any_toy(request: pytest.FixtureRequest, tmp_path: Path, toy_of: "Callable[[Store], Toy]") -> "Toy":
    """The toy stage on disk, and in a store that is none: the code path of S3."""
    url = str(tmp_path / "store") if request.param == "local" else f"memory://bucket/{tmp_path.name}"
    return toy_of(open_store(url, create=True))


@pytest.mark.parametrize(("name", "shard"), [("maps", "c/1/0"), ("label", "c/1")])
def test_every_flipped_byte_of_a_shard_is_refused(toy: "Toy", name: str, shard: str) -> None:
    finished = toy.make()
    file = toy.file(f"data.zarr/{name}/{shard}")
    key = f"{toy.spec.path}/data.zarr/{name}/{shard}"
    for index in range(file.stat().st_size):
        flip(file, index)
        with pytest.raises(DamagedError) as caught:
            finished.read(name)
        assert str(caught.value) == f"{toy.spec.path}: array {name!r}, partition 1, key {key}: fails its checksum"
        flip(file, index)
    assert len(finished.read(name)) == 10


@pytest.mark.parametrize(("name", "shard"), [("maps", "c/1/0"), ("label", "c/1")])
def test_every_cut_of_a_shard_is_refused(toy: "Toy", name: str, shard: str) -> None:
    finished = toy.make()
    file = toy.file(f"data.zarr/{name}/{shard}")
    raw = file.read_bytes()
    for stop in range(len(raw)):
        file.write_bytes(raw[:stop])
        with pytest.raises(DamagedError, match=rf"array '{name}', partition 1, key .*/{shard}: "):
            finished.read(name)


def test_other_partitions_of_a_damaged_array_are_read(toy: "Toy", values: Values) -> None:
    finished = toy.make()
    flip(toy.file("data.zarr/maps/c/1/0"), 0)
    np.testing.assert_array_equal(finished.read("maps", 0, 4), values["maps"][:4])
    np.testing.assert_array_equal(finished.read("maps", 8), values["maps"][8:])


def test_a_deleted_shard_is_named_not_filled_in(any_toy: "Toy") -> None:
    finished = any_toy.make()
    key = finished.shard_path("maps", 2)
    any_toy.store.remove(key)
    with pytest.raises(DamagedError) as caught:
        finished.read("maps", 5)
    text = f"{any_toy.spec.path}: array 'maps', partition 2, key {key}: its file is missing or empty"
    assert str(caught.value) == text


def test_every_flipped_byte_of_array_metadata_is_refused(toy: "Toy") -> None:
    finished = toy.make()
    file = toy.file("data.zarr/label/zarr.json")
    for index in range(file.stat().st_size):
        flip(file, index)
        with pytest.raises(
            DamagedError, match=r"/label/zarr\.json: the metadata of array 'label' is damaged or missing$"
        ):
            finished.read("label")
        flip(file, index)
    file.unlink()
    with pytest.raises(DamagedError, match=r"/label/zarr\.json: the metadata of array 'label' is damaged or missing$"):
        finished.read("label")


def test_every_flipped_byte_of_the_completion_note_is_refused(toy: "Toy") -> None:
    toy.make()
    file = toy.file("markers/complete.json")
    for index in range(file.stat().st_size):
        flip(file, index)
        with pytest.raises(DamagedError, match=r"^toy/\w+/markers/complete\.json: "):
            open_finished(toy.store, toy.spec)
        flip(file, index)


def test_every_flipped_byte_of_a_marker_makes_its_partition_missing(toy: "Toy") -> None:
    stage = toy.begin()
    toy.write(stage, 0)
    file = toy.file("markers/000000.json")
    for index in range(file.stat().st_size):
        flip(file, index)
        assert stage.marker(0) is None
        flip(file, index)


def test_files_that_are_damaged_missing_or_unknown_are_refused(toy: "Toy") -> None:
    finished = toy.make()
    file = toy.file("files/table-0")
    for index in range(5):
        flip(file, index)
        with pytest.raises(
            DamagedError, match=r"^toy/\w+/files/table-0: expected the content that was written, found other content$"
        ):
            finished.read_file("table-0")
        flip(file, index)
    file.unlink()
    with pytest.raises(DamagedError, match=r"files/table-0: expected a file of a complete stage, found none$"):
        finished.read_file("table-0")
    toy.file("files/extra").write_bytes(b"x")
    with pytest.raises(DamagedError, match=r"files/extra: expected the content that was written, found other content$"):
        finished.read_file("extra")


def test_a_fault_of_the_network_is_not_taken_for_damage(toy: "Toy", monkeypatch: pytest.MonkeyPatch) -> None:
    finished = toy.make()

    async def lost(self: LocalStore, *arguments: object, **options: object) -> None:
        raise ConnectionError("connection lost")

    opened = zarr.open_array(toy.file("data.zarr/label"), mode="r")
    monkeypatch.setattr(type(finished), "_array", lambda self, name: opened)
    monkeypatch.setattr(LocalStore, "get", lost)
    with pytest.raises(ConnectionError, match="connection lost"):
        finished.read("label")


def test_a_shard_that_fails_only_once_names_the_cause(toy: "Toy", monkeypatch: pytest.MonkeyPatch) -> None:
    finished = toy.make()
    get, calls = LocalStore.get, iter([True])

    async def once(self: LocalStore, *arguments: object, **options: object) -> object:
        if next(calls, False):
            raise ValueError("bad for once")
        return await get(self, *arguments, **options)  # type: ignore[arg-type]  # passed on as given

    opened = zarr.open_array(toy.file("data.zarr/label"), mode="r")
    monkeypatch.setattr(type(finished), "_array", lambda self, name: opened)
    monkeypatch.setattr(LocalStore, "get", once)
    with pytest.raises(DamagedError, match=r"array 'label': bad for once$"):
        finished.read("label")
