"""The features stage: the interpreter's own results by class."""

from typing import TYPE_CHECKING

import numpy as np

from storage.stages import open_finished
from tasks.interpreters import INTERPRETERS
from tasks.steps.interpretation.selection import kept_positions
from tests.plans import cells, learned, references

if TYPE_CHECKING:
    from tests.conftest import Run
    from tests.tasks.conftest import Plain


def test_components_are_those_of_the_interpreter_by_hand(finished_run: "Run", plain: "dict[str, Plain]") -> None:
    cell = next(c for c in cells(finished_run.plan) if (c.selector, c.budget) == ("moderate", 0.5))
    store = finished_run.job.store
    stage, selection = open_finished(store, cell.features), open_finished(store, cell.selection)
    maps = np.asarray(open_finished(store, learned(finished_run.plan)["small", 0]).read("maps"), np.float32)
    np.testing.assert_allclose(maps, plain["train"].maps, rtol=1e-4, atol=1e-5)
    for label in (0, 7):
        kept = np.sort(kept_positions(selection)[label])
        by_hand = INTERPRETERS["ice"].fit(maps[kept], seed=[0, label], components=3)
        found = stage.read("components", label, label + 1)[0]
        rank = len(by_hand.arrays["components"])
        np.testing.assert_allclose(found[:rank], by_hand.arrays["components"], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(found[rank:], 0)
        logged = stage.summary["classes"][str(label)]
        assert logged["kept"] == 6
        np.testing.assert_allclose(logged["relative_error"], by_hand.numbers["relative_error"], rtol=1e-6)


def test_the_reference_is_fitted_to_everything(finished_run: "Run") -> None:
    stage = open_finished(finished_run.job.store, references(finished_run.plan)["small", 0, "ice"])
    assert [stage.summary["classes"][str(label)]["kept"] for label in range(10)] == [12] * 10
