import errno
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.storage._common import ensure_no_existing_node

from storage.documents import digest
from storage.layouts import ArrayLayout, Layout
from storage.specs import StageSpec
from storage.stages import Stage, begin_stage, find_finished, open_finished, read_marker
from storage.stores import Store, StoreError, open_store
from storage.verify import verify_stage

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


def test_a_stage_is_created_filled_and_sealed(any_toy: "Toy", values: Values) -> None:
    stage = any_toy.begin()
    assert stage.missing() == [0, 1, 2]
    assert find_finished(any_toy.store, any_toy.spec.path) is None
    for number in (2, 0, 1):
        any_toy.write(stage, number)
    assert stage.missing() == []
    assert find_finished(any_toy.store, any_toy.spec.path) is None
    stage.seal({"rows": 10})
    finished = open_finished(any_toy.store, any_toy.spec)
    assert finished.layout == any_toy.layout
    assert finished.summary == {"rows": 10}
    for name, expected in values.items():
        np.testing.assert_array_equal(finished.read(name), expected)
        np.testing.assert_array_equal(finished.read(name, 3, 9), expected[3:9])
        assert finished.read(name, 5, 5).shape == (0, *expected.shape[1:])
    assert finished.read_file("table-1") == b"row 1"
    assert list(verify_stage(any_toy.store, any_toy.spec.path)) == []


def test_a_stage_goes_on_at_its_missing_partitions(any_toy: "Toy") -> None:
    any_toy.write(any_toy.begin(), 1)
    before = any_toy.contents()
    stage = any_toy.begin()
    assert stage.missing() == [0, 2]
    assert any_toy.contents() == before


def test_two_ways_to_the_end_give_the_same_bytes(tmp_path: Path, toy_of: "Callable[[Store], Toy]") -> None:
    whole, halting = (toy_of(open_store(str(tmp_path / name), create=True)) for name in "ab")
    whole.make()
    for number in (2, 0, 1):
        halting.write(halting.begin(), number)
    halting.make()
    first, second = whole.contents(), halting.contents()
    markers = {f"markers/{p:06d}.json" for p in range(3)}  # they tell times
    assert first.keys() == second.keys()
    assert {k: v for k, v in first.items() if k not in markers} == {k: v for k, v in second.items() if k not in markers}


def test_a_marker_follows_its_data(toy: "Toy", monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    write, stage = Store.write, toy.begin()

    def watch(self: Store, path: str, data: bytes) -> None:
        order.extend(name for name in ("data.zarr/maps/c/0/0", "data.zarr/label/c/0") if toy.file(name).exists())
        order.append(path.removeprefix(f"{toy.spec.path}/"))
        write(self, path, data)

    monkeypatch.setattr(Store, "write", watch)
    toy.write(stage, 0)
    shards = ["data.zarr/maps/c/0/0", "data.zarr/label/c/0"]
    assert order == [*shards, "files/table-0", *shards, "markers/000000.json"]


def test_a_marker_has_digests_and_numbers(toy: "Toy", values: Values) -> None:
    stage = toy.begin()
    with stage.partition(2) as part:
        assert part.span == (8, 10)
        for name in values:
            part.write(name, values[name][8:])
        part.numbers["seconds"] = 7.0
    marker = read_marker(toy.store, toy.spec.path, 2)
    assert marker == stage.marker(2)
    assert marker["partition"] == 2
    assert marker["arrays"] == {name: digest(values[name][8:].tobytes()) for name in values}
    assert marker["numbers"]["seconds"] == 7.0
    assert marker["numbers"].keys() == {"seconds", "cpu_seconds"}


def test_a_failing_partition_gets_no_marker(toy: "Toy", values: Values) -> None:
    stage = toy.begin()

    def fail() -> None:
        with stage.partition(0) as part:
            part.write("maps", values["maps"][:4])
            raise RuntimeError("no luck")

    with pytest.raises(RuntimeError, match="no luck"):
        fail()
    assert stage.missing() == [0, 1, 2]


def test_a_partition_that_lacks_an_array_is_a_mistake(toy: "Toy", values: Values) -> None:
    stage = toy.begin()
    with pytest.raises(AssertionError, match="label"), stage.partition(0) as part:
        part.write("maps", values["maps"][:4])
    assert stage.missing() == [0, 1, 2]


@pytest.mark.parametrize("held", [b"", b"{}", b'{"partition": 0, "sha256": "00"}'])
def test_a_damaged_marker_counts_as_missing(toy: "Toy", held: bytes) -> None:
    for number in range(3):
        toy.write(toy.begin(), number)
    toy.file("markers/000001.json").write_bytes(held)
    assert toy.begin().missing() == [1]


def test_a_marker_of_another_partition_counts_as_missing(toy: "Toy") -> None:
    toy.write(toy.begin(), 0)
    toy.file("markers/000001.json").write_bytes(toy.file("markers/000000.json").read_bytes())
    assert toy.begin().missing() == [1, 2]


def test_a_finished_stage_is_read_only(any_toy: "Toy") -> None:
    any_toy.make()
    before = any_toy.contents()
    stage = any_toy.begin()
    with pytest.raises(
        StoreError, match=r"^toy of tests \[.{8}\]: finished stages are read-only, nothing was written$"
    ):
        any_toy.write(stage, 0)
    assert any_toy.contents() == before


@pytest.mark.parametrize(
    ("block", "got"),
    [
        (np.zeros((3, 3), np.float32), r"float32 \(3, 3\)"),
        (np.zeros((4, 3), np.float64), r"float64 \(4, 3\)"),
        (np.zeros((4,), np.float32), r"float32 \(4,\)"),
        (np.zeros((4, 3), np.int32), r"int32 \(4, 3\)"),
    ],
)
def test_a_block_of_another_shape_or_type_is_refused(toy: "Toy", block: NDArray[np.generic], got: str) -> None:
    stage = toy.begin()
    before = toy.contents()
    text = rf"array 'maps', partition 0: got {got}, the layout has float32 \(4, 3\)$"
    with pytest.raises(ValueError, match=text), stage.partition(0) as part:
        part.write("maps", block)
    assert toy.contents() == before


def test_another_layout_is_refused_on_claim(toy: "Toy") -> None:
    toy.begin()
    before = toy.contents()
    with pytest.raises(StoreError, match=r"the store holds it with another layout; remove .*/toy/\w+ and run again$"):
        begin_stage(toy.store, toy.spec, Layout(3))
    assert toy.contents() == before


def test_another_identity_is_refused_on_claim(toy: "Toy", monkeypatch: pytest.MonkeyPatch) -> None:
    toy.begin()
    other = StageSpec("toy", 2)
    monkeypatch.setitem(other.__dict__, "key", toy.spec.key)  # as if two identities had one hash
    with pytest.raises(StoreError, match=r"the store holds it with another identity; remove .* and run again$"):
        begin_stage(toy.store, other, toy.layout)


def test_a_finished_stage_of_another_identity_is_refused(toy: "Toy", monkeypatch: pytest.MonkeyPatch) -> None:
    toy.make()
    other = StageSpec("toy", 2)
    monkeypatch.setitem(other.__dict__, "key", toy.spec.key)
    with pytest.raises(StoreError, match="the store holds another stage under this key; run `layerlore verify`"):
        open_finished(toy.store, other)


def test_an_incomplete_stage_is_not_opened(toy: "Toy") -> None:
    toy.write(toy.begin(), 0)
    with pytest.raises(StoreError, match="not complete; `layerlore run` the config that makes it first"):
        open_finished(toy.store, toy.spec)


def test_sealing_refuses_what_is_missing(toy: "Toy") -> None:
    stage = toy.begin()
    toy.write(stage, 0)
    with pytest.raises(StoreError, match=r"2 partitions are missing, the first is 1$"):
        stage.seal()
    assert find_finished(toy.store, toy.spec.path) is None


def test_a_stage_without_arrays_or_partitions_can_be_sealed(store: Store) -> None:
    stage = begin_stage(store, StageSpec("empty", 1), Layout(0))
    assert stage.seal().layout == Layout(0)
    assert list(verify_stage(store, stage.spec.path)) == []


def test_leftovers_of_a_killed_writer_are_swept(toy: "Toy") -> None:
    toy.write(toy.begin(), 0)
    before = toy.contents()
    for name in ("data.zarr/maps/c/0/0.abc.partial", "markers/.000001.json.0.partial", "files/.x.0.partial"):
        toy.file(name).write_bytes(b"torn")
    toy.begin()
    assert toy.contents() == before


def test_blocks_of_nothing_but_zeros_or_nan_are_written(store: Store) -> None:
    layout = Layout(
        1,
        {
            "zeros": ArrayLayout((4,), "int64", ("n",), 4, 4),
            "false": ArrayLayout((4,), "bool", ("n",), 4, 2),
            "nan": ArrayLayout((4, 2), "float32", ("n", "d"), 4, 2),
        },
    )
    stage = begin_stage(store, StageSpec("toy", 1), layout)
    with stage.partition(0) as part:
        part.write("zeros", np.zeros(4, np.int64))
        part.write("false", np.zeros(4, np.bool_))
        part.write("nan", np.full((4, 2), np.nan, np.float32))
    finished = stage.seal()
    files = store.files(f"{stage.spec.path}/data.zarr")
    assert {"zeros/c/0", "false/c/0", "nan/c/0/0"} <= files.keys()
    np.testing.assert_array_equal(finished.read("zeros"), [0, 0, 0, 0])
    np.testing.assert_array_equal(finished.read("nan"), np.full((4, 2), np.nan))
    assert list(verify_stage(store, stage.spec.path)) == []


def test_arrays_with_an_axis_of_length_zero_come_back(store: Store) -> None:
    layout = Layout(1, {"codes": ArrayLayout((3, 0), "float32", ("n", "d"), 3, 3)})
    stage = begin_stage(store, StageSpec("toy", 1), layout)
    with stage.partition(0) as part:
        part.write("codes", np.empty((3, 0), np.float32))
    assert stage.seal().read("codes").shape == (3, 0)
    assert list(verify_stage(store, stage.spec.path)) == []


def test_a_group_is_opened_by_xarray_with_names(toy: "Toy", values: Values) -> None:
    toy.make()
    with xr.open_zarr(toy.file("data.zarr"), consolidated=False) as opened:
        assert opened["maps"].dims == ("sample", "channel")
        assert dict(opened.sizes) == {"sample": 10, "channel": 3}
        np.testing.assert_array_equal(opened["maps"].to_numpy(), values["maps"])
        np.testing.assert_array_equal(opened["label"].to_numpy(), values["label"])


def test_metadata_are_not_consolidated_and_state_the_stage(toy: "Toy") -> None:
    toy.make()
    group = json.loads(toy.file("data.zarr/zarr.json").read_bytes())
    assert group.get("consolidated_metadata") is None
    assert group["attributes"]["layerlore"] == {"identity": toy.spec.identity, "layout": toy.layout.document()}
    assert {name for name in toy.contents() if name.startswith("data.zarr")} == {
        "data.zarr/zarr.json",
        *(f"data.zarr/{name}/zarr.json" for name in ("maps", "label")),
        *(f"data.zarr/maps/c/{p}/0" for p in range(3)),
        *(f"data.zarr/label/c/{p}" for p in range(3)),
    }


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


def test_a_stage_can_be_sent_to_a_worker(toy: "Toy") -> None:
    stage: Stage = pickle.loads(pickle.dumps(toy.begin()))  # noqa: S301  # as Dask sends it
    toy.write(stage, 0)
    assert toy.begin().missing() == [1, 2]


def test_a_group_that_another_run_makes_while_zarr_looks_is_taken(toy: "Toy", monkeypatch: pytest.MonkeyPatch) -> None:
    place, looked = f"{toy.spec.path}/data.zarr/zarr.json", list[str]()

    async def late(*given: Any, **options: Any) -> None:  # Any: Zarr's own
        if not looked:
            looked.append(place)
            toy.store.write(place, b'{"attributes": {}, "zarr_format": 3, "node_type": "group"}')
        await ensure_no_existing_node(*given, **options)

    monkeypatch.setattr("zarr.core.group.ensure_no_existing_node", late)
    toy.make()
    assert looked == [place]
    assert zarr.open_group(toy.store.path(toy.spec.path, "data.zarr"), mode="r").attrs["layerlore"]
