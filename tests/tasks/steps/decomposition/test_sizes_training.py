"""What the plan says of question 2's trainings against what they write."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tasks.steps.common.courses import MEMORY_SAMPLES
from tasks.steps.common.survey import PlanSurvey
from tasks.steps.decomposition.decomposed_training import DECOMPOSED_TRAININGS
from tasks.steps.decomposition.gates import GATES, gates_spec
from tests.plans import decomposed

if TYPE_CHECKING:
    from tests.conftest import Run


def written(run: "Run", path: str) -> int:
    """Return the bytes of a stage's tensors and arrays, uncompressed or not, without tables and digests."""
    files = (f for part in ("files", "data.zarr") for f in Path(run.config.store, path, part).rglob("*"))
    return sum(f.stat().st_size for f in files if f.suffix == ".safetensors" or ("/c/" in f.as_posix() and f.is_file()))


@pytest.mark.parametrize("scope", ["head", "network"])
def test_the_size_of_a_retraining(decomposed_run: "Run", scope: str) -> None:
    run = decomposed_run
    (one,) = decomposed(run.plan)
    spec = one.retrained[scope]
    size = DECOMPOSED_TRAININGS.size(spec, PlanSurvey(run.job.store))
    headers = 3 * 4096
    assert written(run, spec.path) - headers <= size.written <= 2 * written(run, spec.path)
    assert 2 * MEMORY_SAMPLES < size.peak < 2 * MEMORY_SAMPLES + 10**8
    wide = replace(spec, parameters={**spec.parameters, "k2": 17})
    with pytest.raises(
        ValueError, match=r"decomposition\.k2: expected at most the 16 features of small \w+ k 4 seed 0, found 17"
    ):
        DECOMPOSED_TRAININGS.size(wide, PlanSurvey(run.job.store))


def test_the_size_of_gates(decomposed_run: "Run") -> None:
    run = decomposed_run
    training = run.plan.shared.trainings["small", 0]
    size = GATES.size(gates_spec(training, "train", 4), PlanSurvey(run.job.store))
    assert size.written == 4 * 16 * 10 + 8 * 10 * 4
    assert MEMORY_SAMPLES < size.peak < MEMORY_SAMPLES + 10**8
    with pytest.raises(ValueError, match=r"data\.digits: expected one of the splits train, val, found 'test'"):
        GATES.size(gates_spec(training, "test", 4), PlanSurvey(run.job.store))
