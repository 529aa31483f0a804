"""What reading a stage asks a store for: each file that it needs once, and no other; counted on disk and far away."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from storage.documents import DamagedError
from storage.layouts import ArrayLayout, Layout, is_fill
from storage.memory import remembering
from storage.specs import StageSpec
from storage.stages import begin_stage, find_finished, find_many, markers_of, open_finished
from storage.stores import Store
from storage.together import together
from tests.counting import MARKER, METADATA, NOTE, counted

if TYPE_CHECKING:
    from tests.storage.conftest import Toy

ToyOf = Callable[[Store], "Toy"]


def made(store: Store, toy_of: ToyOf, count: int) -> "list[Toy]":
    """Make so many toy stages, of three partitions each."""
    toys = [replace(toy_of(store), spec=StageSpec("toy", 1, {"a": number})) for number in range(count)]
    for toy in toys:
        toy.make()
    return toys


@pytest.mark.parametrize("count", [1, 4])
def test_a_run_reads_each_completion_note_once(any_store: Store, toy_of: ToyOf, count: int) -> None:
    toys = made(any_store, toy_of, count)
    paths = [toy.spec.path for toy in toys]
    with counted() as requests:
        store = remembering(any_store)
        for _ in range(2):
            assert list(find_many(store, [*paths, "toy/absent", *paths])) == paths
        for toy in toys:
            assert open_finished(remembering(store), toy.spec).note == open_finished(any_store, toy.spec).note
    assert requests.count("miss", NOTE) == 2  # another run may have made it since
    assert requests.count("read", NOTE) == count + count  # the second time by `any_store`, which remembers nothing
    assert len(requests.seen) == 2 + 2 * count


def test_a_run_knows_the_notes_that_it_wrote(any_store: Store, toy_of: ToyOf) -> None:
    toy = toy_of(remembering(any_store))
    note = toy.make().note
    with counted() as requests:
        assert open_finished(toy.store, toy.spec).note == note
    assert requests.seen == []


def test_another_run_reads_the_note_of_a_stage_made_again(any_toy: "Toy") -> None:
    first, second = remembering(any_toy.store), remembering(any_toy.store)
    any_toy.make()
    assert find_finished(first, any_toy.spec.path) is not None
    any_toy.store.remove(any_toy.spec.path)
    assert find_finished(second, any_toy.spec.path) is None
    any_toy.make()
    found = find_finished(second, any_toy.spec.path)
    assert found is not None
    assert found.summary == {"rows": 10}


@pytest.mark.parametrize("name", ["maps", "table-1", "marker"])
def test_a_stage_that_is_removed_under_a_run_is_named(any_toy: "Toy", name: str) -> None:
    any_toy.make()
    store = remembering(any_toy.store)
    assert find_finished(store, any_toy.spec.path) is not None
    any_toy.store.remove(any_toy.spec.path)
    finished = open_finished(store, any_toy.spec)
    found = "expected a complete stage, found it removed during the run; run its config again to make it"
    text = f"^{any_toy.spec.path}: {found}$"
    with pytest.raises(DamagedError, match=text):
        {"maps": lambda: finished.read("maps"), "marker": finished.markers}.get(
            name, lambda: finished.read_file(name)
        )()
    assert find_finished(store, any_toy.spec.path) is None  # it is not believed any longer


def test_sealing_reads_each_marker_once(any_toy: "Toy") -> None:
    stage = any_toy.begin()
    any_toy.write(stage, 1)
    with counted() as requests:
        before = stage.looked()
        assert before.missing() == [0, 2]
        assert before.marker(0) is None
        assert before.marker(1) == stage.marker(1)  # the second is asked for
        assert requests.count("read", MARKER) == 2
        any_toy.write(stage, 0)
        any_toy.write(stage, 2)
        requests.seen.clear()
        after = stage.looked(before.seen)
        assert after.missing() == []
        finished = after.seal()
    assert requests.count("read", MARKER) == 2  # of the partitions written since
    assert requests.count("names") == 1
    assert requests.count("read", METADATA) == 3  # the group's and two arrays'
    assert len(requests.seen) == 2 + 1 + 3 + 1
    assert finished.note == any_toy.begin().seal().note


def test_markers_of_many_stages_are_read_once_each(any_store: Store, toy_of: ToyOf) -> None:
    stages = [open_finished(any_store, toy.spec) for toy in made(any_store, toy_of, 3)]
    with counted() as requests:
        markers = markers_of(stages)
    assert [[marker["partition"] for marker in each] for each in markers] == [[0, 1, 2]] * 3
    assert requests.count("read", MARKER) == len(requests.seen) == 9


def test_reading_an_array_asks_for_its_metadata_once_and_for_its_shards(any_toy: "Toy") -> None:
    finished = any_toy.make()
    with counted() as requests:
        finished.read("label")
        finished.read("label", 0, 4)
        finished.read("label", 4)
    assert requests.count("read", METADATA) == 1
    assert requests.count("zarr get", METADATA) == requests.count("zarr exists") == 0
    assert requests.count("zarr get") == 3 + 1 + 2
    # Labels are the partition's number, so partition 0 has the fill value of missing rows.
    assert [path for verb, path in requests.seen if verb == "size"] == [finished.shard_path("label", 0)] * 2


@pytest.mark.parametrize(
    ("dtype", "fill"), [("float32", np.nan), ("float16", np.nan), ("int64", 0), ("uint8", 0), ("bool", False)]
)
def test_a_missing_shard_is_looked_for_only_where_all_is_fill_value(store: Store, dtype: str, fill: float) -> None:
    """Partition 0 is all fill value, 1 but for its first value, 2 but for its last one."""
    layout = ArrayLayout((10, 2), dtype, ("n", "d"), 4, 2)
    values = np.full((10, 2), fill, dtype)
    values[4, 0] = values[9, 1] = 1
    stage = begin_stage(store, StageSpec("toy", 1), Layout(3, {"x": layout}))
    for number in range(3):
        with stage.partition(number) as part:
            part.write("x", values[slice(*layout.span(number))])
    finished = stage.seal()
    shards = [finished.shard_path("x", number) for number in range(3)]
    looked = {(0, 10): [0], (0, 5): [0], (5, 8): [1], (4, 8): [], (8, 9): [2], (3, 9): [0, 2], (9, 10): [], (2, 2): []}
    for span, partitions in looked.items():
        with counted() as requests:
            np.testing.assert_array_equal(finished.read("x", *span), values[slice(*span)])
        assert [path for verb, path in requests.seen if verb == "size"] == [shards[number] for number in partitions]
    for shard in shards:
        Path(store.path(shard)).unlink()
    for span in looked:
        if span != (2, 2):
            with pytest.raises(DamagedError, match=r"its file is missing or empty$"):
                finished.read("x", *span)


def test_an_empty_block_is_fill_value() -> None:
    assert is_fill(ArrayLayout((0, 2), "int64", ("n", "d"), 1, 1), np.zeros((0, 2), np.int64))


@pytest.mark.parametrize("items", [[], [3], list(range(100))])
def test_what_goes_together_comes_back_in_order(any_store: Store, items: list[int]) -> None:
    assert together(any_store, lambda item: item * item, items) == [item * item for item in items]


def test_the_first_failure_of_what_goes_together_is_raised(any_store: Store) -> None:
    def fail(item: int) -> None:
        raise ValueError(str(item))

    with pytest.raises(ValueError, match=r"^0$"):
        together(any_store, fail, range(5))


def test_a_store_is_read_and_written_at_once(any_store: Store) -> None:
    objects = {f"a/{number}": b"%d" % number for number in range(50)}
    any_store.write_all(objects)
    found = any_store.read_all([*objects, "a/absent"])
    assert {path: found[path] for path in objects} == objects
    assert isinstance(found["a/absent"], FileNotFoundError)
    assert any_store.read_all([]) == {}
    any_store.write_all({})
