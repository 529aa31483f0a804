"""What a plan says of question 4's stages: bytes to write and memory."""

import math
from typing import TYPE_CHECKING

import numpy as np

from flows.progress import planned_stages
from storage.stages import open_finished
from tests.plans import traces

if TYPE_CHECKING:
    from tests.conftest import Run


def test_stages_write_about_what_the_plan_says(traced_run: "Run") -> None:
    planned = {(row.stage, row.key): row for row in planned_stages(traced_run.plan, None)}
    assert len(planned) == len(traced_run.plan.stages) == 14
    for spec in traced_run.plan.stages:
        arrays = open_finished(traced_run.job.store, spec).layout.arrays.values()
        held = sum(math.prod(array.shape) * np.dtype(array.dtype).itemsize for array in arrays)
        row = planned[spec.stage, spec.key]
        assert row.peak > 0
        assert row.written >= 0.5 * held, spec.stage
    training = traces(traced_run.plan)[0].training
    archive = open_finished(traced_run.job.store, training).summary["archive_bytes"]
    weights = 4 * (9 * 4 + 9 * 4 * 8 + 9 * 8 * 8 + 8 * 10 + 10)  # of all recorded layers
    assert planned["training", training.key].written >= weights * 42
    assert archive < planned["training", training.key].written
