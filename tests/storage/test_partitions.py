"""What a worker writes, and when it counts; two that write the same are in test_overtaking.py."""

import pickle
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from storage.documents import digest
from storage.layouts import ArrayLayout, Layout
from storage.specs import StageSpec
from storage.stages import Stage, begin_stage, read_marker
from storage.stores import Store
from storage.verify import verify_stage

if TYPE_CHECKING:
    from tests.storage.conftest import Toy

Values = dict[str, NDArray[np.generic]]


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
    text = rf"array 'maps', partition 0: expected float32 \(4, 3\), found {got}$"
    with pytest.raises(ValueError, match=text), stage.partition(0) as part:
        part.write("maps", block)
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


def test_a_stage_can_be_sent_to_a_worker(toy: "Toy") -> None:
    stage: Stage = pickle.loads(pickle.dumps(toy.begin()))  # noqa: S301  # as Dask sends it
    toy.write(stage, 0)
    assert toy.begin().missing() == [1, 2]
