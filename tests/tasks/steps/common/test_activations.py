"""The activations stage against a plain loop."""

from typing import TYPE_CHECKING

import numpy as np
import pytest
import xarray
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from storage.stages import FinishedStage, open_finished
from tasks.steps.common.activations import (
    MAX_ROWS,
    PARTITION_BYTES,
    activations_layout,
    check_same_samples,
    ranges_by_class,
)
from tasks.steps.common.shapes import Shapes
from tests.plans import held_out, learned

if TYPE_CHECKING:
    from tests.conftest import Run
    from tests.tasks.conftest import Plain


def floats(stage: FinishedStage, name: str) -> NDArray[np.float64]:
    """Return an array of a stage as float64."""
    return np.asarray(stage.read(name), np.float64)


@pytest.mark.parametrize("split", ["train", "val"])
def test_maps_logits_and_pooled_are_those_of_a_plain_loop(
    finished_run: "Run", plain: "dict[str, Plain]", split: str
) -> None:
    specs = learned(finished_run.plan) if split == "train" else held_out(finished_run.plan)
    stage, by_hand = open_finished(finished_run.job.store, specs["small", 0]), plain[split]
    np.testing.assert_allclose(floats(stage, "maps"), by_hand.maps, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(floats(stage, "logits"), by_hand.logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(floats(stage, "pooled"), by_hand.maps.mean((1, 2)), rtol=1e-4, atol=1e-5)


def test_rows_are_class_by_class_then_by_id(finished_run: "Run", plain: "dict[str, Plain]") -> None:
    stage = open_finished(finished_run.job.store, learned(finished_run.plan)["small", 0])
    np.testing.assert_array_equal(stage.read("label"), np.repeat(np.arange(10), 12))
    np.testing.assert_array_equal(plain["train"].labels, stage.read("label"))
    ids = np.asarray(stage.read("sample_id")).reshape(10, 12)
    assert (np.diff(ids, axis=1) > 0).all()
    assert ranges_by_class(stage) == {label: (12 * label, 12 * label + 12) for label in range(10)}


def test_no_sample_is_in_both_splits(plain: "dict[str, Plain]") -> None:
    assert not set(plain["train"].ids) & set(plain["val"].ids)


def test_content_digests_tell_images_apart(finished_run: "Run", plain: "dict[str, Plain]") -> None:
    content = open_finished(finished_run.job.store, learned(finished_run.plan)["small", 0]).read("content")
    images = load_digits().images[plain["train"].ids].reshape(120, -1)
    assert len(np.unique(content, axis=0)) == len(np.unique(images, axis=0))


def test_the_arrays_open_with_xarray(finished_run: "Run", plain: "dict[str, Plain]") -> None:
    path = finished_run.job.store.path(learned(finished_run.plan)["small", 0].path, "data.zarr")
    with xarray.open_zarr(path, consolidated=False) as found:
        assert found["maps"].dims == ("sample", "row", "column", "channel")
        np.testing.assert_allclose(found["maps"], plain["train"].maps, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("maps", [(8, 4, 4), (512, 7, 7), (512, 13, 13), (2048, 56, 56)])
@pytest.mark.parametrize("n", [1, 31, 33, 5000])
def test_partitions_are_whole_chunks_of_bounded_size(maps: tuple[int, int, int], n: int) -> None:
    layout = activations_layout(n, Shapes((3, 8, 8), maps, 10, 64), "float32")
    rows = {array.rows for array in layout.arrays.values()}
    assert len(rows) == 1
    size = rows.pop()
    assert size % 32 == 0
    assert size <= MAX_ROWS
    assert size * 4 * np.prod(maps) <= PARTITION_BYTES or size == 32
    assert layout.partitions == -(-n // size)
    assert all(array.rows % array.chunk == 0 for array in layout.arrays.values())


def test_stages_of_other_samples_cannot_be_joined(finished_run: "Run") -> None:
    store, plan = finished_run.job.store, finished_run.plan
    learn, evaluate = (open_finished(store, specs["small", 0]) for specs in (learned(plan), held_out(plan)))
    check_same_samples(learn, learn)
    with pytest.raises(ValueError, match=r"expected the 120 samples of activations/\w+, found 40"):
        check_same_samples(learn, evaluate)
