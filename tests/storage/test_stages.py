"""The life of a stage; its partitions are in test_partitions.py, what crashes leave in test_stages_damaged.py."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from storage.layouts import Layout, group_metadata
from storage.specs import StageSpec
from storage.stages import begin_stage, find_finished, open_finished
from storage.stores import Store, StoreError, open_store
from storage.verify import verify_stage

if TYPE_CHECKING:
    from tests.storage.conftest import Toy

Values = dict[str, NDArray[np.generic]]


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
    markers = {f"markers/{p:06d}.json" for p in range(3)}  # they have times
    assert first.keys() == second.keys()
    assert {k: v for k, v in first.items() if k not in markers} == {k: v for k, v in second.items() if k not in markers}


def test_a_finished_stage_is_read_only(any_toy: "Toy") -> None:
    any_toy.make()
    before = any_toy.contents()
    stage = any_toy.begin()
    with pytest.raises(
        StoreError, match=r"^toy of tests \[.{8}\]: expected an unfinished stage, found a finished one, read-only$"
    ):
        any_toy.write(stage, 0)
    assert any_toy.contents() == before


def test_another_layout_is_refused_on_claim(toy: "Toy") -> None:
    toy.begin()
    before = toy.contents()
    with pytest.raises(
        StoreError, match=r"expected the same layout in the store, found another; remove .*/toy/\w+ and run again$"
    ):
        begin_stage(toy.store, toy.spec, Layout(3))
    assert toy.contents() == before


def test_another_identity_is_refused_on_claim(toy: "Toy", monkeypatch: pytest.MonkeyPatch) -> None:
    toy.begin()
    other = StageSpec("toy", 2)
    monkeypatch.setitem(other.__dict__, "key", toy.spec.key)  # as if two identities had one hash
    with pytest.raises(
        StoreError, match=r"expected the same identity in the store, found another; remove .* and run again$"
    ):
        begin_stage(toy.store, other, toy.layout)


def test_a_finished_stage_of_another_identity_is_refused(toy: "Toy", monkeypatch: pytest.MonkeyPatch) -> None:
    toy.make()
    other = StageSpec("toy", 2)
    monkeypatch.setitem(other.__dict__, "key", toy.spec.key)
    with pytest.raises(StoreError, match="expected this stage, found another under its key; run `layerlore verify`"):
        open_finished(toy.store, other)


def test_an_incomplete_stage_is_not_opened(toy: "Toy") -> None:
    toy.write(toy.begin(), 0)
    with pytest.raises(
        StoreError, match="expected a complete stage, found none; `layerlore run` the config that makes it first"
    ):
        open_finished(toy.store, toy.spec)


def test_sealing_refuses_what_is_missing(toy: "Toy") -> None:
    stage = toy.begin()
    toy.write(stage, 0)
    with pytest.raises(StoreError, match=r"expected all partitions, found 2 missing, the first is 1$"):
        stage.seal()
    assert find_finished(toy.store, toy.spec.path) is None


def test_a_stage_without_arrays_or_partitions_can_be_sealed(store: Store) -> None:
    stage = begin_stage(store, StageSpec("empty", 1), Layout(0))
    assert stage.seal().layout == Layout(0)
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


def test_a_group_has_the_bytes_that_zarr_writes(toy: "Toy") -> None:
    group = zarr.create_group(MemoryStore(), attributes={"layerlore": {"identity": toy.spec.identity, "layout": [1]}})
    written = group.metadata.to_buffer_dict(default_buffer_prototype())["zarr.json"].to_bytes()
    assert group_metadata({"layerlore": {"identity": toy.spec.identity, "layout": [1]}}) == written
    toy.begin()
    made = toy.file("data.zarr/zarr.json").read_bytes()
    opened = zarr.open_group(toy.file("data.zarr"), mode="r+", use_consolidated=False)
    opened.attrs["layerlore"] = opened.attrs["layerlore"]  # Zarr writes it again
    assert toy.file("data.zarr/zarr.json").read_bytes() == made


@pytest.mark.parametrize("attributes", [{}, {"other": 1}])
def test_a_group_without_our_attributes_gets_them(any_toy: "Toy", attributes: dict[str, int]) -> None:
    any_toy.begin()
    place = f"{any_toy.spec.path}/data.zarr/zarr.json"
    made = any_toy.store.read(place)
    any_toy.store.write(place, group_metadata(attributes))
    any_toy.begin()
    assert any_toy.store.read(place) == made
