"""The selection stage: what the selectors give by hand, whatever the grouping and the workers."""

from typing import TYPE_CHECKING

import numpy as np
import pytest

from storage.stages import open_finished
from tasks.coresets import SELECTORS
from tasks.steps.selection import classes_per_partition, kept_positions

if TYPE_CHECKING:
    from tests.conftest import Run
    from tests.tasks.steps.conftest import Plain


@pytest.mark.parametrize("selector", ["random", "moderate"])
@pytest.mark.parametrize("repeat", [0, 1])
def test_coresets_are_those_of_the_selector_by_hand(
    finished_run: "Run", plain: "dict[str, Plain]", selector: str, repeat: int
) -> None:
    cells = [c for c in finished_run.plan.cells if (c.selector, c.repeat, c.budget) == (selector, repeat, 0.5)]
    for cell in cells:
        stage = open_finished(finished_run.job.store, cell.selection)
        for label in range(10):
            slab = plain["train"].of_class(label)
            features = plain["train"].maps[slab].mean((1, 2))
            chosen = SELECTORS[selector](features, 0.5, seed=[0, repeat, label])
            np.testing.assert_array_equal(kept_positions(stage, label), slab[chosen.order])
            assert len(chosen.order) == 6
    assert len(cells) == (0 if (selector, repeat) == ("moderate", 1) else 1)


def test_draws_differ(finished_run: "Run") -> None:
    orders = [
        open_finished(finished_run.job.store, c.selection).read("order")
        for c in finished_run.plan.cells
        if c.selector == "random" and c.budget == 0.5
    ]
    assert len(orders) == 2
    assert (np.sort(orders[0]) != np.sort(orders[1])).any()


def test_everything_is_one_stage_for_all_selectors(finished_run: "Run") -> None:
    whole = {cell.selection.path for cell in finished_run.plan.cells if cell.budget == 1.0}
    assert len(whole) == 1
    stage = open_finished(finished_run.job.store, finished_run.plan.cells[-1].selection)
    np.testing.assert_array_equal(stage.read("order"), np.arange(120).reshape(10, 12))
    np.testing.assert_array_equal(stage.read("label"), np.arange(10))


def test_classes_per_partition_is_a_rule_of_shapes() -> None:
    assert classes_per_partition(1000, 100, 1000) == 10
    assert classes_per_partition(5, 100, 1000) == 5
    assert classes_per_partition(1000, 5000, 1000) == 1
    assert classes_per_partition(3, 0, 10) == 3
