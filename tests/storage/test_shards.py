"""Small shards of finished stages that are not local: read whole, once in a run, and never past a damage."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from storage import shards
from storage.documents import DamagedError
from storage.memory import remembering
from storage.shards import Shards
from storage.stages import open_finished
from storage.stores import Store
from tests.counting import counted

if TYPE_CHECKING:
    from tests.storage.conftest import Toy

Values = dict[str, NDArray[np.generic]]
SHARD = r"/data\.zarr/\w+/c/"


@pytest.fixture
def toy(far: Store, toy_of: Callable[[Store], "Toy"]) -> "Toy":
    """A finished toy stage far away, of three shards for each of two arrays."""
    made = toy_of(far)
    made.make()
    return made


@pytest.fixture(autouse=True)
def empty(monkeypatch: pytest.MonkeyPatch) -> Shards:
    """Nothing is remembered at first."""
    found = Shards()
    monkeypatch.setattr("storage.finished.SHARDS", found)
    return found


def test_each_shard_is_read_once_in_a_run(toy: "Toy", values: Values) -> None:
    store = remembering(toy.store)
    with counted() as requests:
        for _ in range(3):  # each partition of a stage opens its inputs again
            finished = open_finished(store, toy.spec)
            for name, expected in values.items():
                np.testing.assert_array_equal(finished.read(name), expected)
                for start, stop in ((0, 1), (3, 5), (9, 10), (4, 4)):
                    np.testing.assert_array_equal(finished.read(name, start, stop), expected[start:stop])
    assert requests.count("read", SHARD) == 2 * 3
    assert requests.most("read", "") == 1
    assert requests.count("zarr get") == 0
    assert len(requests.seen) == 1 + 2 + 2 * 3  # the completion record, the metadata of both arrays


def test_only_the_shards_with_the_rows_are_read(toy: "Toy", values: Values) -> None:
    finished = open_finished(remembering(toy.store), toy.spec)
    with counted() as requests:
        np.testing.assert_array_equal(finished.read("maps", 5, 9), values["maps"][5:9])
    assert [path[-3:] for verb, path in requests.seen if verb == "read" and "/c/" in path] == ["1/0", "2/0"]


@pytest.mark.parametrize("case", ["another run", "no run", "large", "many"])
def test_other_readers_ask_the_store(toy: "Toy", values: Values, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    open_finished(remembering(toy.store), toy.spec).read("maps")
    if case in ("large", "many"):
        monkeypatch.setattr(shards, "SMALL" if case == "large" else "TOGETHER", 4 * 3 * 4 - 1)
    store = toy.store if case == "no run" else remembering(toy.store)
    for _ in range(2):
        with counted() as requests:
            np.testing.assert_array_equal(open_finished(store, toy.spec).read("maps"), values["maps"])
        again = case != "another run" or _ == 0
        assert (requests.count("read", SHARD) + requests.count("zarr get", "c/") > 0) == again
    assert (requests.count("zarr get", "c/") > 0) == (case != "another run")


def test_a_local_store_is_read_by_zarr(store: Store, toy_of: Callable[[Store], "Toy"], empty: Shards) -> None:
    toy = toy_of(store)
    toy.make()
    open_finished(remembering(store), toy.spec).read("maps")
    assert not empty.found


def test_no_more_is_remembered_than_may_be(toy: "Toy", empty: Shards, values: Values) -> None:
    store = remembering(toy.store)
    finished = open_finished(store, toy.spec)
    paths = [finished.shard_path("maps", number) for number in range(3)]
    sizes = [len(store.read(path)) for path in paths]
    empty.kept = sum(sizes) - 1
    finished.read("maps")
    assert [path for _, path in empty.found] == paths[1:]
    empty.read(store, [paths[1]])  # it is used: the other one goes first
    empty.read(store, [paths[0]])
    assert [path for _, path in empty.found] == [paths[1], paths[0]]
    assert empty.size == sizes[0] + sizes[1] <= empty.kept
    np.testing.assert_array_equal(finished.read("maps"), values["maps"])


def test_a_damaged_shard_is_named_and_read_again(toy: "Toy", values: Values, empty: Shards) -> None:
    finished = open_finished(remembering(toy.store), toy.spec)
    path = finished.shard_path("maps", 1)
    whole = toy.store.read(path)
    toy.store.write(path, bytes([whole[0] ^ 1]) + whole[1:])
    for _ in range(2):
        with pytest.raises(DamagedError, match=r"array 'maps', partition 1, key .* fails its checksum$"):
            finished.read("maps")
    toy.store.write(path, whole)
    np.testing.assert_array_equal(finished.read("maps"), values["maps"])


def test_a_missing_shard_is_named(toy: "Toy") -> None:
    finished = open_finished(remembering(toy.store), toy.spec)
    toy.store.remove_object(finished.shard_path("label", 2))
    toy.store.write(finished.shard_path("label", 0), b"")
    with pytest.raises(DamagedError, match=r"array 'label', partition 0, "):
        finished.read("label", 0, 4)
    with pytest.raises(DamagedError, match=r"array 'label', partition 2, .* its file is missing or empty$"):
        finished.read("label", 4)
    np.testing.assert_array_equal(finished.read("label", 4, 8), np.full(4, 1))
    toy.store.remove(toy.spec.path)
    with pytest.raises(DamagedError, match="found it removed during the run"):
        finished.read("label", 8)


def test_a_fault_of_the_network_is_not_taken_for_damage(toy: "Toy", monkeypatch: pytest.MonkeyPatch) -> None:
    finished = open_finished(remembering(toy.store), toy.spec)
    finished.check_metadata("maps")
    lost = ConnectionError("connection lost")
    monkeypatch.setattr(Store, "read_all", lambda store, paths: dict.fromkeys(paths, lost))
    with pytest.raises(ConnectionError, match="connection lost"):
        finished.read("maps")
