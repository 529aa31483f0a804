"""What the plan says of question 2's trainings against what they write."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tasks.steps.common.survey import HeadShapes, survey_data
from tasks.steps.common.training import MEMORY_SAMPLES
from tasks.steps.decomposition.gates import gates_spec
from tasks.steps.decomposition.sizes_training import TRAINING_SIZES

if TYPE_CHECKING:
    from tests.conftest import Run

HEAD = HeadShapes((1, 8, 8), 16, 10, 512, 0)


def written(run: "Run", path: str) -> int:
    """Return the bytes of a stage's tensors and arrays, uncompressed or not, without tables and digests."""
    files = (f for part in ("files", "data.zarr") for f in Path(run.config.store, path, part).rglob("*"))
    return sum(f.stat().st_size for f in files if f.suffix == ".safetensors" or ("/c/" in f.as_posix() and f.is_file()))


@pytest.mark.parametrize("scope", ["head", "network"])
def test_the_size_of_a_retraining(decomposed_run: "Run", scope: str) -> None:
    run = decomposed_run
    (one,) = run.plan.decomposed
    spec, manifest = one.retrained[scope], run.plan.manifests["digits"]
    surveys, heads = {manifest.path: survey_data(run.job.store, manifest)}, {one.learn.path: HEAD}
    size, peak = TRAINING_SIZES[spec.stage](spec, surveys, heads)
    headers = 3 * 4096
    assert written(run, spec.path) - headers <= size <= 2 * written(run, spec.path)
    assert 2 * MEMORY_SAMPLES < peak < 2 * MEMORY_SAMPLES + 10**8
    small = HeadShapes(HEAD.inputs, 3, HEAD.outputs, HEAD.largest, 0)
    with pytest.raises(ValueError, match=r"decomposition\.k2: 4 of 3 features, which small \w+ k 4 seed 0 has"):
        TRAINING_SIZES[spec.stage](spec, surveys, {one.learn.path: small})


def test_the_size_of_gates(decomposed_run: "Run") -> None:
    run = decomposed_run
    (one,) = run.plan.decomposed
    manifest = run.plan.manifests["digits"]
    surveys = {manifest.path: survey_data(run.job.store, manifest)}
    spec = gates_spec(run.plan.trainings["small", 0], "train", 4)
    size, peak = TRAINING_SIZES["gates"](spec, surveys, {one.learn.path: HEAD})
    assert size == 4 * 16 * 10 + 8 * 10 * 4
    assert MEMORY_SAMPLES < peak < MEMORY_SAMPLES + 10**8
    other = gates_spec(run.plan.trainings["small", 0], "test", 4)
    with pytest.raises(ValueError, match=r"data\.digits: no split 'test'; splits: train, val"):
        TRAINING_SIZES["gates"](other, surveys, {one.learn.path: HEAD})
