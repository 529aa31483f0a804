"""Verifying many stages: their records are read together, with a bound, and each stage has its own lines in order."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from storage import verify
from storage.specs import StageSpec
from storage.stores import CONNECTIONS, Store
from storage.verify import stage_paths, verify_stage, verify_stages
from tests.counting import MARKER, METADATA, NOTE, counted

if TYPE_CHECKING:
    from tests.storage.conftest import Toy

ToyOf = Callable[[Store], "Toy"]


def toys(store: Store, toy_of: ToyOf, count: int) -> "list[Toy]":
    """Make so many toy stages, of three partitions each."""
    found = [replace(toy_of(store), spec=StageSpec("toy", 1, {"a": number})) for number in range(count)]
    for toy in found:
        toy.make()
    return found


def damaged(store: Store, made: "list[Toy]") -> list[str]:
    """Damage a completion record, a partition record, metadata and a file, let one be incomplete; return the paths."""
    paths = [toy.spec.path for toy in made]
    store.write(f"{paths[1]}/markers/complete.json", b"{}")
    store.write(f"{paths[2]}/markers/000001.json", b"{}")
    store.remove(f"{paths[3]}/markers/complete.json")
    store.write(f"{paths[4]}/data.zarr/maps/zarr.json", b"{}")
    store.write(f"{paths[5]}/files/table-1", b"other")
    store.remove(f"{paths[5]}/markers/000000.json")
    return [*paths, "toy/absent"]


@pytest.mark.parametrize("most", [1, 7, 1024])
def test_each_stage_has_its_lines_whatever_is_read_together(
    any_store: Store, toy_of: ToyOf, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(verify, "MOST_RECORDS", most)
    paths = damaged(any_store, toys(any_store, toy_of, 7))
    found = list(verify_stages(any_store, paths))
    assert found == [verify_stage(any_store, path) for path in paths]
    assert [len(lines) for lines in found] == [0, 1, 1, 0, 1, 2, 0, 0]
    assert "markers/complete.json" in found[1][0]
    assert "markers/000001.json" in found[2][0]
    assert "the metadata of array 'maps' is damaged" in found[4][0]
    assert found[5][0].endswith("markers/000000.json: missing")
    assert "files/table-1" in found[5][1]


@pytest.mark.parametrize(("most", "reads"), [(1024, 3), (18, 1 + 2 * 2), (1, 1 + 2 * 5)])
def test_records_of_a_far_store_are_read_together_with_a_bound(
    far: Store, toy_of: ToyOf, monkeypatch: pytest.MonkeyPatch, most: int, reads: int
) -> None:
    """Notes in one read, then the records of as many stages as the bound allows, of six objects each, in two."""
    made, read_all, sizes = toys(far, toy_of, 5), Store.read_all, list[int]()

    def noted(store: Store, paths: list[str]) -> dict[str, bytes | Exception]:
        sizes.append(len(paths))
        return read_all(store, paths)

    monkeypatch.setattr(verify, "MOST_RECORDS", most)
    monkeypatch.setattr(Store, "read_all", noted)
    assert list(verify_stages(far, [toy.spec.path for toy in made])) == [[]] * 5
    assert len(sizes) == reads
    assert sum(sizes) == 5 * (1 + 3 + 3)
    assert max(sizes) <= max(5, most)


def test_each_object_is_read_once(any_store: Store, toy_of: ToyOf) -> None:
    count = CONNECTIONS + 1
    made = toys(any_store, toy_of, count)
    with counted() as requests:
        assert [line for lines in verify_stages(any_store, [toy.spec.path for toy in made]) for line in lines] == []
    for pattern, each in ((NOTE, 1), (MARKER, 3), (METADATA, 3)):
        assert requests.count("read", pattern) == each * count
        assert requests.most("read", pattern) == 1


def test_the_format_is_no_kind_of_stage(any_store: Store, toy_of: ToyOf) -> None:
    (toy,) = toys(any_store, toy_of, 1)
    with counted() as requests:
        assert stage_paths(any_store) == [toy.spec.path]
    assert requests.seen == [("names", ""), ("names", "toy")]
