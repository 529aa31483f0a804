"""The gallery stage: which images, and heat maps as the interpreter gives them."""

from typing import TYPE_CHECKING

import numpy as np
import pytest
from sklearn.datasets import load_digits

from storage.stages import open_finished
from tasks.interpreters import INTERPRETERS
from tasks.interpreters.ice import top_heat_maps
from tasks.steps.common.pictures import chosen_positions
from tasks.steps.interpretation.features import BEST_MAPS
from tests.plans import galleries

if TYPE_CHECKING:
    from tests.conftest import Run
    from tests.tasks.conftest import Plain

CLASS_RANGES = {3: (0, 2), 5: (2, 3), 8: (3, 7)}


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, [(0, 3, 0)]),
        (2, [(0, 3, 0), (1, 5, 2)]),
        (3, [(0, 3, 0), (1, 5, 2), (2, 8, 3)]),
        (5, [(0, 3, 0), (0, 3, 1), (1, 5, 2), (2, 8, 3)]),  # class 5 has only one
        (8, [(0, 3, 0), (0, 3, 1), (1, 5, 2), (2, 8, 3), (2, 8, 4)]),
    ],
)
def test_images_are_spread_over_the_classes(count: int, expected: list[tuple[int, int, int]]) -> None:
    assert chosen_positions(CLASS_RANGES, count) == expected


def test_pictures_are_the_images_and_their_heat(finished_run: "Run", plain: "dict[str, Plain]") -> None:
    store, plan, by_hand = finished_run.job.store, finished_run.plan, plain["val"]
    (spec,) = galleries(plan).values()
    stage = open_finished(store, spec)
    np.testing.assert_array_equal(stage.read("label"), [0, 5])
    ids = np.asarray(stage.read("sample_id"))
    rows = [by_hand.of_class(label)[0] for label in (0, 5)]
    np.testing.assert_array_equal(ids, by_hand.ids[rows])
    np.testing.assert_array_equal(stage.read("predicted"), by_hand.logits[rows].argmax(1))
    levels = np.rint(load_digits().images[ids] * 255 / 16)
    np.testing.assert_array_equal(stage.read("image"), np.repeat(levels[..., None], 3, axis=-1))
    assert stage.summary["titles"] == ["full data", "random 50 %", "moderate 50 %"]
    heat = np.asarray(stage.read("heat"))
    for column, role in enumerate(("features 0", "features 1", "features 2")):
        for row, label in enumerate((0, 5)):
            arrays = {"components": np.asarray(open_finished(store, spec.inputs[role]).read("components")[label])}
            codes = INTERPRETERS["ice"].encode(arrays, by_hand.maps[rows[row]][None])[0]
            expected = np.rint(top_heat_maps(codes, BEST_MAPS, (8, 8)) * 255)
            assert np.abs(heat[row, column].astype(float) - expected).max() <= 1
