"""The selection stage: what the selectors give by hand, whatever the grouping and the workers."""

from typing import TYPE_CHECKING

import numpy as np
import pytest

from storage.notes import read_markers
from storage.stages import begin_stage, find_finished, open_finished
from tasks.cluster.parallel import PartitionError
from tasks.coresets import SELECTORS
from tasks.coresets.dgpruning import select_dgpruning
from tasks.coresets.moderate import select_moderate_across
from tasks.engine.life import complete
from tasks.engine.step import Work
from tasks.steps.common.activations import ranges_by_class
from tasks.steps.interpretation import selection
from tasks.steps.interpretation.selection import SELECTION, classes_per_partition, kept_positions, selection_spec
from tests.plans import cells, held_out, learned

if TYPE_CHECKING:
    from tests.conftest import Run
    from tests.tasks.conftest import Plain


@pytest.mark.parametrize("selector", ["random", "moderate"])
@pytest.mark.parametrize("repeat", [0, 1])
def test_coresets_are_those_of_the_selector_by_hand(
    finished_run: "Run", plain: "dict[str, Plain]", selector: str, repeat: int
) -> None:
    chosen = [c for c in cells(finished_run.plan) if (c.selector, c.repeat, c.budget) == (selector, repeat, 0.5)]
    for cell in chosen:
        stage = open_finished(finished_run.job.store, cell.selection)
        for label in range(10):
            class_range = plain["train"].of_class(label)
            features = plain["train"].maps[class_range].mean((1, 2))
            selected = SELECTORS[selector](features, 0.5, seed=[0, repeat, label])
            np.testing.assert_array_equal(kept_positions(stage)[label], class_range[selected.order])
            assert len(selected.order) == 6
    assert len(chosen) == (0 if (selector, repeat) == ("moderate", 1) else 1)


def test_draws_differ(finished_run: "Run") -> None:
    orders = [
        open_finished(finished_run.job.store, c.selection).read("order")
        for c in cells(finished_run.plan)
        if c.selector == "random" and c.budget == 0.5
    ]
    assert len(orders) == 2
    assert (np.sort(orders[0]) != np.sort(orders[1])).any()


def test_everything_is_one_stage_for_all_selectors(finished_run: "Run") -> None:
    whole = {cell.selection.path for cell in cells(finished_run.plan) if cell.budget == 1.0}
    assert len(whole) == 1
    stage = open_finished(finished_run.job.store, cells(finished_run.plan)[-1].selection)
    np.testing.assert_array_equal(stage.read("order"), np.arange(120).reshape(10, 12))
    np.testing.assert_array_equal(stage.read("label"), np.arange(10))


def test_classes_per_partition_is_a_rule_of_shapes() -> None:
    assert classes_per_partition(1000, 100, 1000) == 10
    assert classes_per_partition(5, 100, 1000) == 5
    assert classes_per_partition(1000, 5000, 1000) == 1
    assert classes_per_partition(3, 0, 10) == 3


def test_coresets_made_together_are_those_made_alone_whatever_was_there(
    copied_run: "Run", monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, job = copied_run.plan, copied_run.job
    # Coresets of two splits, which have layouts of their own, in partitions of one class each.
    monkeypatch.setattr(selection, "GROUP_VALUES", 1)
    splits = [next(iter(found.values())) for found in (learned(plan), held_out(plan))]
    kinds = [("random", 0.5, 0), ("random", 0.25, 1), ("moderate", 0.5, 0), ("", 1.0, 0)]
    specs = [selection_spec(split, name, {}, budget, 3, draw) for split in splits for name, budget, draw in kinds]
    orders = []
    for history in ("alone", "together", "resumed"):
        job.store.remove("selection")
        if history == "resumed":  # a run was killed, which had made some of the partitions of some of the stages
            for spec, done in zip(specs[1:4], ([0, 1, 2], [], [2, 7]), strict=True):
                stage = begin_stage(job.store, spec, SELECTION.layout(job.store, spec))
                for number in done:
                    SELECTION.partition(Work((stage,), "cpu"), number)
        for batch in [[spec] for spec in specs] if history == "alone" else [specs]:
            complete(job, SELECTION, batch)
        orders.append([open_finished(job.store, spec).read("order") for spec in specs])
        assert [open_finished(job.store, spec).layout.partitions for spec in specs] == [10] * 8
    for alone, together, resumed in zip(*orders, strict=True):
        np.testing.assert_array_equal(together, alone)
        np.testing.assert_array_equal(resumed, alone)


def test_a_coreset_that_fails_is_named_and_does_not_stop_the_others(copied_run: "Run") -> None:
    learn, job = next(iter(learned(copied_run.plan).values())), copied_run.job
    good = [selection_spec(learn, "random", {}, budget, 5, 0) for budget in (0.25, 0.5, 0.75)]
    bad = selection_spec(learn, "moderate", {"center": "mode"}, 0.25, 0, 0)
    with pytest.raises(
        PartitionError, match=r"^partition 0 of 4 x selection: selection moderate 0.25 .*: class 0: center: expected"
    ):
        complete(job, SELECTION, [good[0], bad, *good[1:]])
    assert [find_finished(job.store, spec.path) is not None for spec in (*good, bad)] == [True, True, True, False]


def test_a_class_that_cannot_be_selected_from_is_named(copied_run: "Run") -> None:
    spec = selection_spec(next(iter(learned(copied_run.plan).values())), "moderate", {"center": "mode"}, 0.5, 0, 0)
    with pytest.raises(Exception, match=r"partition 0 of selection moderate 0.5 .*: class 0: center: expected 'mean'"):
        complete(copied_run.job, SELECTION, [spec])


def test_dgpruning_is_that_of_the_selector_and_its_distances_are_logged(copied_run: "Run") -> None:
    learn, job = next(iter(learned(copied_run.plan).values())), copied_run.job
    activations = open_finished(job.store, learn)
    specs = [selection_spec(learn, "dgpruning", {"k": 3, "scale": scale}, 0.5, 0, 0) for scale in ("none", "median")]
    assert specs[0].parameters.keys() == {"selector", "budget", "seed", "repeat", "k"}  # defaults are left out
    complete(job, SELECTION, specs)
    pooled = activations.read("pooled")
    for spec, scale in zip(specs, ("none", "median"), strict=True):
        stage = open_finished(job.store, spec)
        (record,) = read_markers(job.store, [(spec.path, 0)]).values()
        assert isinstance(record, dict)
        logged = record["numbers"]["classes"]
        for row, (label, (start, stop)) in enumerate(ranges_by_class(activations).items()):
            selected = select_dgpruning(pooled[start:stop], 0.5, k=3, scale=scale)  # type: ignore[arg-type]  # a loop
            np.testing.assert_array_equal(kept_positions(stage)[row], start + selected.order)
            assert logged[str(label)] == {"kept": 6, "of": 12, **selected.info}
            assert selected.info["median_distance"] > 0


def test_the_scope_of_the_data_set_compares_all_classes(copied_run: "Run") -> None:
    learn, job = next(iter(learned(copied_run.plan).values())), copied_run.job
    activations = open_finished(job.store, learn)
    settings = {"scope": "dataset", "center": "median"}
    across = [selection_spec(learn, "moderate", settings, budget, 0, 0) for budget in (0.2, 0.5)]
    within = selection_spec(learn, "moderate", {"scope": "class"}, 0.2, 0, 0)
    assert within.path == selection_spec(learn, "moderate", {}, 0.2, 0, 0).path
    complete(job, SELECTION, [*across, within])
    ranges = list(ranges_by_class(activations).values())
    classes = [activations.read("pooled", start, stop).astype(np.float64) for start, stop in ranges]
    for spec, budget in zip(across, (0.2, 0.5), strict=True):
        stage = open_finished(job.store, spec)
        assert stage.layout.partitions == 1
        chosen = select_moderate_across(classes, budget, center="median")
        for kept, selected, (start, _) in zip(kept_positions(stage), chosen, ranges, strict=True):
            np.testing.assert_array_equal(kept, start + selected.order)
        np.testing.assert_array_equal(stage.read("label"), np.arange(10))
    counts = [len(kept) for kept in kept_positions(open_finished(job.store, across[1]))]
    assert sum(counts) >= 60
    assert len(set(counts)) > 1  # classes lie at different distances from their centres
