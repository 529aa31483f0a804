"""The life of a stage: made from another, left alone once whole, gone on with after failures, together or in chains."""

import re
from dataclasses import replace

import numpy as np
import pytest

from configs.schema import Config
from storage.specs import StageSpec
from storage.stages import Stage, begin_stage, find_finished
from storage.stores import open_store
from tasks.cluster.parallel import PartitionError, SerialPool
from tasks.engine.life import Job, assignments, complete, open_job
from tasks.engine.step import MOST_TOGETHER, Work
from tests.tasks.engine.two_stages import FIRST, LAYOUT, SECOND, STEP, Heard, both, contents, fill, lines, start_from


def all_together(spec: StageSpec) -> None:
    """Every stage is of one group."""


def test_two_stages_are_made_one_from_the_other(job: Job) -> None:
    second = both(job)
    np.testing.assert_array_equal(second.read("x"), 2 * (np.arange(12).reshape(6, 2) + 1))
    assert second.summary == {"rows": 6}
    assert lines(job) == [
        "begin 0/2",
        "advance",
        "advance",
        f"end {FIRST.title}",
        "begin 0/2",
        "advance",
        "advance",
        f"end {SECOND.title}",
    ]


def test_what_is_complete_is_left_alone(job: Job) -> None:
    both(job)
    before, heard = contents(job.store), len(lines(job))
    both(job)
    assert contents(job.store) == before
    assert len(lines(job)) == heard


def test_a_stage_asked_for_twice_is_made_once_and_returned_twice(job: Job) -> None:
    one, two = complete(job, STEP, [FIRST, FIRST])
    assert one.path == two.path
    assert lines(job) == ["begin 0/2", "advance", "advance", f"end {FIRST.title}"]


def test_no_stages_are_no_work(job: Job) -> None:
    assert complete(job, STEP, []) == []
    assert lines(job) == []


def test_a_rerun_makes_only_what_is_missing(job: Job) -> None:
    made: list[tuple[str, int]] = []

    def watch(work: Work, number: int) -> None:
        if not made:
            made.append((work.stage.spec.label, number))
            raise RuntimeError("no luck")
        made.append((work.stage.spec.label, number))
        fill(work.stage, number)

    step = replace(STEP, partition=watch)
    with pytest.raises(PartitionError):
        complete(job, step, start_from(1, 2))
    complete(job, step, start_from(1, 2))
    assert made == [("1", 0), ("1", 1), ("2", 0), ("2", 1), ("1", 0)]
    assert "begin 1/2" in lines(job)


def test_a_failing_partition_is_named_and_does_not_stop_the_others(job: Job) -> None:
    good, bad = start_from(1, 2)

    def fail(work: Work, number: int) -> None:
        if work.stage.spec == bad and number == 0:
            raise ValueError("layer 'conv': NaN in sample 7")
        fill(work.stage, number)

    with pytest.raises(PartitionError) as caught:
        complete(job, replace(STEP, partition=fail), [bad, good])
    assert str(caught.value) == f"partition 0 of {bad.title}: layer 'conv': NaN in sample 7"
    assert isinstance(caught.value.__cause__, ValueError)
    assert find_finished(job.store, good.path) is not None  # sealed, since it is whole
    assert find_finished(job.store, bad.path) is None
    assert lines(job) == ["begin 0/4", "advance", "advance", "advance"]
    complete(job, STEP, [bad])
    assert lines(job)[4:] == ["begin 1/2", "advance", f"end {bad.title}"]


def test_several_failures_are_counted(job: Job) -> None:
    def fail(work: Work, number: int) -> None:
        raise RuntimeError(f"no luck with {number}")

    with pytest.raises(PartitionError, match=r"^partition 0 of .*: no luck with 0 \(2 of 2 partitions failed\)$"):
        complete(job, replace(STEP, partition=fail), [FIRST])


def test_together_a_partition_is_made_for_all_stages_that_lack_it(job: Job) -> None:
    calls: list[tuple[int, list[str]]] = []

    def each(work: Work, number: int) -> None:
        calls.append((number, [stage.spec.label for stage in work.stages]))
        for stage in work.stages:
            fill(stage, number)

    fill(begin_stage(job.store, start_from(1)[0], LAYOUT), 1)
    complete(job, replace(STEP, partition=each, group=all_together), start_from(1, 2))
    assert calls == [(0, ["1", "2"]), (1, ["2"])]


def test_together_are_only_stages_of_one_group_and_no_more_than_the_memory_is_counted_for(job: Job) -> None:
    stages = [begin_stage(job.store, spec, LAYOUT) for spec in start_from(*range(40))]
    fill(stages[2], 0)  # its partition 1 is the first that is missing in the third group

    def third(spec: StageSpec) -> int:
        return int(spec.parameters["start"]) % 3

    items = assignments(stages, "cpu", group=third)
    labels = [(item.number, [int(stage.spec.label) for stage in item.work.stages]) for item in items]
    whole = [list(range(first, 40, 3)) for first in range(3)]
    assert sorted(labels) == sorted(
        [(0, whole[0]), (0, whole[1]), (0, whole[2][1:]), (1, whole[0]), (1, whole[1]), (1, whole[2])]
    )
    assert [number for number, _ in labels] == [0, 0, 0, 1, 1, 1]
    together = assignments(stages, "cpu", group=all_together)
    assert [len(item.work.stages) for item in together] == [
        MOST_TOGETHER,
        MOST_TOGETHER,
        7,
        MOST_TOGETHER,
        MOST_TOGETHER,
        8,
    ]
    assert [len(item.work.stages) for item in assignments(stages, "cpu", group=None)] == [1] * 79


def test_together_a_rerun_asks_for_each_partition_only_where_it_lacks(job: Job) -> None:
    calls: list[tuple[int, list[str]]] = []
    luck = False

    def each(work: Work, number: int) -> None:
        calls.append((number, [stage.spec.label for stage in work.stages]))
        for stage in work.stages:
            if number == 0 and stage.spec.label == "2" and not luck:
                raise RuntimeError("no luck")
            fill(stage, number)

    step = replace(STEP, partition=each, group=all_together)
    with pytest.raises(PartitionError, match=r"^partition 0 of 2 x first: first 2 \[.*\]: no luck$"):
        complete(job, step, start_from(1, 2))
    luck = True
    one, two = complete(job, step, start_from(1, 2))
    assert calls == [(0, ["1", "2"]), (0, ["2"]), (1, ["1", "2"]), (0, ["2"])]
    np.testing.assert_array_equal(np.asarray(two.read("x")) - np.asarray(one.read("x")), np.ones((6, 2)))


def test_together_one_that_fails_does_not_stop_the_others(job: Job) -> None:
    calls: list[list[str]] = []

    def each(work: Work, number: int) -> None:
        calls.append([stage.spec.label for stage in work.stages])
        if "2" in calls[-1]:
            raise RuntimeError("no luck")  # before any is written
        for stage in work.stages:
            fill(stage, number)

    with pytest.raises(PartitionError, match=r"first 2 .*: no luck \(2 of 2 partitions failed\)$"):
        complete(job, replace(STEP, partition=each, group=all_together), start_from(1, 2, 3))
    assert [find_finished(job.store, spec.path) is not None for spec in start_from(1, 2, 3)] == [True, False, True]
    assert calls == [["1", "2", "3"], ["1"], ["2"], ["3"]] * 2


def test_together_a_fault_that_passes_is_tried_again(job: Job) -> None:
    calls: list[list[str]] = []

    def each(work: Work, number: int) -> None:
        calls.append([stage.spec.label for stage in work.stages])
        if len(calls) <= 3 and "2" in calls[-1]:
            raise ConnectionError("away")
        for stage in work.stages:
            fill(stage, number)

    complete(job, replace(STEP, partition=each, group=all_together), start_from(1, 2))
    assert calls == [["1", "2"], ["1"], ["2"], ["2"], ["1", "2"]]


def test_chains_go_step_by_step(job: Job) -> None:
    calls: list[tuple[str, int]] = []

    def link(work: Work, number: int) -> None:
        assert number == 0 or work.stage.marker(number - 1) is not None
        calls.append((work.stage.spec.label, number))
        fill(work.stage, number)

    complete(job, replace(STEP, partition=link, chain=True), start_from(1, 2))
    assert calls == [("1", 0), ("2", 0), ("1", 1), ("2", 1)]


def test_a_broken_chain_does_not_stop_another(job: Job) -> None:
    bad, good = start_from(1, 2)
    calls: list[tuple[str, int]] = []

    def link(work: Work, number: int) -> None:
        calls.append((work.stage.spec.label, number))
        if work.stage.spec == bad:
            raise RuntimeError("no luck")
        fill(work.stage, number)

    with pytest.raises(PartitionError, match=rf"^partition 0 of {re.escape(bad.title)}: no luck$"):
        complete(job, replace(STEP, partition=link, chain=True), [bad, good])
    assert calls == [("1", 0), ("2", 0), ("2", 1)]
    assert find_finished(job.store, good.path) is not None


def test_a_stage_that_goes_on_is_checked_before_its_work_is_counted(job: Job) -> None:
    def drop(stage: Stage) -> Stage:
        assert stage.seen is not None
        assert list(stage.seen) == [1]  # read already
        stage.store.remove(f"{stage.spec.path}/markers/000001.json")
        return replace(stage, seen={})

    def fail_late(work: Work, number: int) -> None:
        raise RuntimeError("no luck")

    stage = begin_stage(job.store, FIRST, LAYOUT)
    fill(stage, 1)
    with pytest.raises(PartitionError, match="2 of 2 partitions failed"):
        complete(job, replace(STEP, check=drop, partition=fail_late), [FIRST])


def test_a_job_is_opened_from_a_config(tiny_tree: dict[str, object]) -> None:
    config = Config.model_validate(tiny_tree)
    with open_job(config, open_store(config.store, create=True), Heard(), wait=False) as job:
        assert isinstance(job.pool, SerialPool)
        assert job.holder.startswith("run tiny of ")
        assert not job.wait
        assert job.store.url == config.store
        complete(job, STEP, [FIRST])
