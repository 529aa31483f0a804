"""A run whose partition another run makes at the same time, with other last digits, ends well."""

import io
from pathlib import Path

import numpy as np
import pytest

from storage.layouts import ArrayLayout, Layout
from storage.partitions import OvertakenError
from storage.specs import StageSpec
from storage.stages import Stage, begin_stage
from storage.stores import Store, open_store
from storage.verify import verify_stage
from tasks.cluster.parallel import SerialPool
from tasks.engine.life import Assignment, Job, complete, run_partition
from tasks.engine.observers import LineObserver
from tasks.engine.step import Step, Work
from tests.tasks.engine.two_stages import size

LAYOUT = Layout(2, {"x": ArrayLayout((8,), "float32", ("n",), 4, 4)})
SPECS = [StageSpec("toy", 1, {"a": number}, label=str(number)) for number in range(3)]
OURS = np.float32(1.0000001)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"), create=True)


def write(stage: Stage, number: int, value: np.float32) -> None:
    with stage.partition(number) as part:
        part.write("x", np.full(4, value))


def make_elsewhere(store: Store, spec: StageSpec) -> bytes:
    """Make a stage as another run does, and return its completion record."""
    stage = begin_stage(store, spec, LAYOUT)
    for number in range(2):
        write(stage, number, np.float32(1))
    stage.seal({"by": "the other"})
    return store.read(f"{spec.path}/markers/complete.json")


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("within", [True, False], ids=["while we write", "before we write"])
def test_a_run_goes_on_with_what_others_left(store: Store, together: bool, within: bool) -> None:
    """The other run makes the second of three stages while we make partition 0 of it."""
    notes: list[bytes] = []

    def partition(work: Work, number: int) -> None:
        for stage in work.stages:
            meets = not notes and stage.spec.path == SPECS[1].path
            if meets and not within:
                notes.append(make_elsewhere(store, stage.spec))
            with stage.partition(number) as part:
                if meets and within:
                    notes.append(make_elsewhere(store, stage.spec))
                part.write("x", np.full(4, OURS))

    group = (lambda _: None) if together else None
    step = Step("any", 1, lambda *_: LAYOUT, partition, size, lambda _: {"by": "us"}, group=group)
    made = complete(Job(store, SerialPool(), LineObserver(io.StringIO())), step, SPECS)
    values = [OURS, np.float32(1), OURS]
    for spec, stage, value in zip(SPECS, made, values, strict=True):
        np.testing.assert_array_equal(stage.read("x"), np.full(8, value))
        assert list(verify_stage(store, spec.path)) == []
    assert [stage.summary["by"] for stage in made] == ["us", "the other", "us"]
    assert store.read(f"{SPECS[1].path}/markers/complete.json") == notes[0]


def test_a_finished_stage_that_lacks_a_marker_is_not_tried_for_ever(store: Store) -> None:
    stage = begin_stage(store, SPECS[0], LAYOUT)
    make_elsewhere(store, SPECS[0])
    store.remove(f"{SPECS[0].path}/markers/000000.json")

    def partition(work: Work, number: int) -> None:
        write(work.stage, number, OURS)

    with pytest.raises(OvertakenError, match="expected an unfinished stage, found a finished one, read-only"):
        run_partition(partition, Assignment(0, Work((stage,), "cpu")))
