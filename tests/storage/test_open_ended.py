"""Stages whose number of partitions is known when they are sealed."""

import json

import pytest

from storage.layouts import Layout
from storage.specs import StageSpec
from storage.stages import Stage, begin_stage, open_finished
from storage.stores import Store, StoreError
from storage.verify import verify_stage

SPEC = StageSpec("toy", 1, label="open")


def write(stage: Stage, *numbers: int) -> None:
    for number in numbers:
        with stage.partition(number) as part:
            part.write_file(f"part-{number}", b"%d" % number)


@pytest.fixture
def stage(store: Store) -> Stage:
    return begin_stage(store, SPEC, Layout(0, open_ended=True))


def test_it_has_as_many_partitions_as_there_are_when_it_is_sealed(stage: Stage) -> None:
    assert stage.missing() == []
    write(stage, 0, 1, 2)
    assert stage.missing() == []
    finished = stage.seal({"n": 3})
    assert finished.layout == Layout(3)
    assert finished.note["layout"] == {"partitions": 3, "arrays": {}}
    assert sorted(finished.note["files"]) == ["part-0", "part-1", "part-2"]
    assert open_finished(stage.store, SPEC).layout.partitions == 3
    assert list(verify_stage(stage.store, SPEC.path)) == []


def test_a_hole_keeps_it_from_being_sealed(stage: Stage) -> None:
    write(stage, 0, 2)
    assert stage.missing() == [1]
    with pytest.raises(StoreError, match="expected all partitions, found 1 missing, the first is 1"):
        stage.seal()


def test_it_goes_on_as_an_open_one_only(stage: Stage) -> None:
    write(stage, 0)
    again = begin_stage(stage.store, SPEC, Layout(0, open_ended=True))
    write(again, 1)
    assert again.seal().layout.partitions == 2
    with pytest.raises(StoreError, match="expected the same layout"):
        begin_stage(stage.store, SPEC, Layout(2))


def test_verify_misses_a_lost_partition(stage: Stage) -> None:
    write(stage, 0, 1)
    stage.seal()
    stage.store.remove(f"{SPEC.path}/markers/000001.json")
    assert list(verify_stage(stage.store, SPEC.path)) == [f"{SPEC.path}/markers/000001.json: missing"]


def test_layouts_of_known_size_are_written_as_before() -> None:
    assert Layout(3).document() == {"partitions": 3, "arrays": {}}
    opened = Layout(0, open_ended=True)
    assert Layout.of(json.loads(json.dumps(opened.document()))) == opened
    assert Layout(3).closed(["000007.json"]) == Layout(3)
    assert opened.closed(["000000.json", "000001.json", "complete.json", "note"]) == Layout(2)
    assert opened.closed([]) == Layout(0)
