"""Sizes: bounds from shapes alone that the stages then keep."""

from typing import TYPE_CHECKING

import numpy as np

from flows.plan import network_names
from storage.stages import open_finished
from tasks.steps.sizes import estimate

if TYPE_CHECKING:
    from tests.conftest import Run

KEPT = ("activations", "selection", "features", "evaluation")


def test_arrays_are_as_large_as_was_said(finished_run: "Run") -> None:
    sizes = estimate(finished_run.config, None, finished_run.plan.stages, network_names(finished_run.plan))
    assert set(sizes) == {spec.path for spec in finished_run.plan.stages}
    for spec in finished_run.plan.stages:
        if spec.stage in KEPT:
            stage = open_finished(finished_run.job.store, spec)
            layout = stage.layout.arrays
            total = sum(int(np.prod(a.shape)) * np.dtype(a.dtype).itemsize for a in layout.values())
            assert sizes[spec.path].written <= total <= 1.2 * sizes[spec.path].written, spec.title


def test_files_are_no_larger_than_was_said(finished_run: "Run") -> None:
    sizes = estimate(finished_run.config, None, finished_run.plan.stages, network_names(finished_run.plan))
    training = next(iter(finished_run.plan.trainings.values()))
    stage = open_finished(finished_run.job.store, training)
    state = sum(4 * a for a in (36, 4, 4, 4, 4, 288, 8, 8, 8, 8, 576, 8, 8, 8, 8, 80, 10)) + 3 * 8
    # weights without headers: four checkpoints and the final file
    assert sizes[training.path].written == 5 * state
    written = sum(len(stage.read_file(name)) for name in stage.note["files"] if name.endswith("safetensors"))
    assert 1 < written / sizes[training.path].written < 2


def test_a_seed_needs_no_second_look_at_a_network(finished_run: "Run") -> None:
    sizes = estimate(
        finished_run.config, finished_run.job.store, finished_run.plan.stages, network_names(finished_run.plan)
    )
    fresh = estimate(finished_run.config, None, finished_run.plan.stages, network_names(finished_run.plan))
    assert sizes == fresh
