"""Partition records in few objects: the same records, less to ask for, and no moment at which one is lost."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest

from storage import packs
from storage.documents import DamagedError
from storage.layouts import ArrayLayout, Layout
from storage.memory import remembering
from storage.partitions import OvertakenError
from storage.specs import StageSpec
from storage.stages import begin_stage, find_finished, markers_of, open_finished
from storage.stores import Store
from storage.verify import verify_stage
from tasks.engine.step import Work
from tests.counting import NOTE, counted

if TYPE_CHECKING:
    from tests.storage.conftest import Toy

ToyOf = Callable[[Store], "Toy"]
PACK = r"/markers/partitions-\d+\.json$"
NAMES = ["complete.json", "partitions-000000.json", "partitions-000001.json"]


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
    assert names(any_toy) == ["000000.json", "000001.json", "000002.json"]
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
        assert len(store.names(f"{finished.path}/markers")) == (2 if packed else 1 + layout.partitions)
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
@pytest.mark.parametrize("at", ["write_all", "remove_object"])
def test_a_process_that_dies_while_it_packs_loses_nothing(
    any_toy: "Toy", at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the packs and the completion record, or between that and the removal of single records."""
    stage, write_all = any_toy.begin(), Store.write_all
    for number in range(3):
        any_toy.write(stage, number)
    before = stage.looked().seen

    def die(store: Store, *given: dict[str, bytes]) -> None:
        if at == "write_all" and not any("complete" in name for name in given[0]):
            return write_all(store, *given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, at, die)
        with pytest.raises(KeyboardInterrupt):
            stage.seal()
    again = any_toy.begin()
    if at == "write_all":
        assert find_finished(any_toy.store, any_toy.spec.path) is None
        assert again.looked().seen == before
        assert again.missing() == []
        again.seal()
        assert names(any_toy) == NAMES
    finished = open_finished(any_toy.store, any_toy.spec)
    assert dict(enumerate(finished.markers())) == before
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


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("after", [0, 1])
def test_a_late_writer_finds_the_stage_packed(any_toy: "Toy", after: int) -> None:
    """The record of its partition is not there alone; what the other run wrote stays."""
    late = any_toy.begin()
    work = Work((late,), "cpu").missing(0)
    assert len(work.stages) == 1

    def be_late() -> None:
        with any_toy.begin().partition(0) as part:
            if after:
                part.write("maps", np.arange(12, dtype=np.float32).reshape(4, 3) / 8)
            any_toy.make()
            part.write_file("table-0", b"another row")

    with pytest.raises(OvertakenError, match="another run wrote partition 0 in the meantime"):
        be_late() if not after else _slowly(be_late)
    assert names(any_toy) == NAMES
    assert Work((late,), "cpu").missing(0).stages == ()
    assert verify_stage(any_toy.store, any_toy.spec.path) == []


def _slowly(function: Callable[[], None]) -> None:
    """Call a function as if a look were never enough for the next write."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("storage.partitions.LOOK", 0.0)
        function()


@pytest.mark.usefixtures("small")
def test_a_partition_that_was_just_looked_for_is_not_looked_for_again(any_toy: "Toy") -> None:
    work = Work((any_toy.begin(),), "cpu").missing(1)
    with counted() as requests:
        any_toy.write(work.stages[0], 1)
    assert requests.count("exists", NOTE) == 1  # before the record, as the stage may be packed
    assert requests.count("miss") == 1
