"""Partition records in few objects: the same records, less to ask for, and no moment at which one is lost."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest

from storage import packs
from storage.documents import DamagedError
from storage.layouts import ArrayLayout, Layout
from storage.memory import remembering
from storage.specs import StageSpec
from storage.stages import begin_stage, find_finished, markers_of, open_finished
from storage.stores import Store
from storage.verify import verify_stage
from tests.counting import counted

if TYPE_CHECKING:
    from tests.storage.conftest import Toy

ToyOf = Callable[[Store], "Toy"]
PACK = r"/markers/partitions-\d+\.json$"
SINGLE = ["000000.json", "000001.json", "000002.json"]
NAMES = [*SINGLE, "complete.json", "partitions-000000.json", "partitions-000001.json"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let three partitions be many, and two records much."""
    monkeypatch.setattr(packs, "PACKED", 3)
    monkeypatch.setattr(packs, "RECORDS", 2)
    monkeypatch.setattr("storage.stages.RECORDS", 2)


def names(toy: "Toy") -> list[str]:
    """The names of a stage's records."""
    return toy.store.names(f"{toy.spec.path}/markers")


@pytest.mark.usefixtures("small")
def test_packed_records_are_the_single_ones(any_toy: "Toy") -> None:
    stage = any_toy.begin()
    for number in range(3):
        any_toy.write(stage, number)
    before = [stage.marker(number) for number in range(3)]
    assert names(any_toy) == SINGLE
    finished = stage.seal()
    assert finished.markers() == before
    assert names(any_toy) == NAMES
    assert verify_stage(any_toy.store, any_toy.spec.path) == []
    with counted() as requests:
        store = remembering(any_toy.store)
        for _ in range(2):
            assert open_finished(store, any_toy.spec).markers() == before
    assert requests.count("read", PACK) == 2
    assert len(requests.seen) == 1 + 2  # the completion record


@pytest.mark.usefixtures("small")
def test_single_records_are_verified_too(any_toy: "Toy") -> None:
    """Late writers and other programs read them."""
    stage = any_toy.begin()
    for number in range(3):
        any_toy.write(stage, number)
    stage.seal()
    store, folder = any_toy.store, f"{any_toy.spec.path}/markers"
    other = store.read(f"{folder}/000002.json")
    store.write(f"{folder}/000000.json", b"{}")
    store.remove_object(f"{folder}/000001.json")
    lines = verify_stage(store, any_toy.spec.path)
    assert len(lines) == 2
    assert lines[0].startswith(f"{folder}/000000.json: not a layerlore document")
    assert lines[1] == f"{folder}/000001.json: missing"
    store.write(f"{folder}/000000.json", other)
    assert verify_stage(store, any_toy.spec.path)[0].startswith(
        f"{folder}/000000.json: expected the record of partition 0"
    )


def test_a_stage_of_few_partitions_or_of_files_keeps_single_records(store: Store, toy_of: ToyOf) -> None:
    toy = toy_of(store)
    assert packs.KEY not in toy.make().note
    array = ArrayLayout((packs.PACKED,), "float32", ("n",), 1, 1)
    for layout, packed in (
        (Layout(packs.PACKED), False),  # a training, whose segments others read while it runs
        (Layout(packs.PACKED, {"x": array}), True),
        (Layout(packs.PACKED - 1, {"x": ArrayLayout((packs.PACKED - 1,), "float32", ("n",), 1, 1)}), False),
    ):
        stage = begin_stage(store, StageSpec("many", 1, {"case": str(layout)}), layout)
        for number in range(layout.partitions):
            with stage.partition(number) as part:
                for name in layout.arrays:
                    part.write(name, np.ones(1, np.float32))
        finished = stage.seal()
        assert (packs.KEY in finished.note) == packed
        assert len(store.names(f"{finished.path}/markers")) == layout.partitions + (2 if packed else 1)
        assert [marker["partition"] for marker in finished.markers()] == list(range(layout.partitions))


def test_stages_of_older_stores_are_read_as_they_are(
    any_store: Store, toy_of: ToyOf, request: pytest.FixtureRequest
) -> None:
    toy = toy_of(any_store)
    single = toy.make().markers()
    request.getfixturevalue("small")
    finished = open_finished(any_store, toy.spec)
    other = begin_stage(any_store, StageSpec("toy", 1, {"a": "another"}), toy.layout)
    for number in range(3):
        toy.write(other, number)
    packed = other.seal()
    assert markers_of([finished, packed]) == [single, packed.markers()]
    assert verify_stage(any_store, toy.spec.path) == []


@pytest.mark.usefixtures("small")
def test_a_process_that_dies_after_it_packed_loses_nothing(any_toy: "Toy", monkeypatch: pytest.MonkeyPatch) -> None:
    stage, write_all = any_toy.begin(), Store.write_all
    for number in range(3):
        any_toy.write(stage, number)
    before = stage.looked().seen

    def die(store: Store, objects: dict[str, bytes]) -> None:
        if any("complete" in name for name in objects):
            raise KeyboardInterrupt
        write_all(store, objects)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write_all", die)
        with pytest.raises(KeyboardInterrupt):
            stage.seal()
    assert find_finished(any_toy.store, any_toy.spec.path) is None
    again = any_toy.begin()
    assert again.looked().seen == before
    assert again.missing() == []
    assert dict(enumerate(again.seal().markers())) == before
    assert verify_stage(any_toy.store, any_toy.spec.path) == []


@pytest.mark.usefixtures("small")
def test_damage_of_a_pack_is_one_line(toy: "Toy") -> None:
    toy.make()
    name = f"{toy.spec.path}/markers/partitions-000000.json"
    intact = toy.store.read(name)
    other = toy.store.read(f"{toy.spec.path}/markers/partitions-000001.json")
    for damaged, text in (
        (intact.replace(b"float", b"floaT", 1) if b"float" in intact else intact[:-3] + b"x}\n", name),
        (b"{}", f"{name}: not a layerlore document"),
        (other, f"{name}: expected the record of partition 0, found that of 2"),
    ):
        toy.store.write(name, damaged)
        assert any(line.startswith(text) for line in verify_stage(toy.store, toy.spec.path))
        with pytest.raises(DamagedError, match="partitions-000000"):
            open_finished(toy.store, toy.spec).markers()
    toy.store.remove(name)
    assert verify_stage(toy.store, toy.spec.path) == [f"{name}: missing"]
    with pytest.raises(DamagedError, match="expected a partition record of a complete stage, found none"):
        open_finished(toy.store, toy.spec).markers()
