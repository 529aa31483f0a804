"""Helpers of the stages over stored features: ranges of positions as partitions, chunks, sums in files."""

import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.specs import StageSpec
from storage.stages import FinishedStage, open_finished
from storage.stores import Store
from tasks.engine.survey import Survey
from tasks.steps.decomposition.features import head_shapes

RANGE_VALUES = 64_000_000  # feature values per partition: seconds of work
CHUNK_VALUES = 2_000_000  # feature values, or logits, in memory at once

Array = NDArray[Any]  # Any: integers and floats


def n_ranges(store: Store, features: StageSpec) -> int:
    """Return the number of ranges of positions of a finished penultimate stage."""
    n, d = open_finished(store, features).layout.arrays["features"].shape
    return -(-n // rows_per_range(d))


def count_ranges(features: StageSpec, survey: Survey) -> int:
    """Return the number of ranges of positions of a planned penultimate stage."""
    n = survey.data(features.inputs["data"]).count(features.parameters["split"])
    return -(-n // rows_per_range(head_shapes(features, survey).features))


def rows_per_range(n_features: int) -> int:
    """Return the number of images in a partition: a multiple of the features' partitions."""
    return max(1024, RANGE_VALUES // n_features // 1024 * 1024)


def rows_per_chunk(features: int, outputs: int) -> int:
    """Return the number of images in memory at once."""
    return max(1, CHUNK_VALUES // max(features, outputs))


def chunks(features: FinishedStage, number: int) -> Iterator[tuple[int, int]]:
    """Yield the first and past-the-end position of each chunk of a range."""
    n, d = features.layout.arrays["features"].shape
    size, end = rows_per_chunk(d, int(features.summary["outputs"])), min((number + 1) * rows_per_range(d), n)
    for start in range(number * rows_per_range(d), end, size):
        yield start, min(start + size, end)


def features_read(spec: StageSpec) -> StageSpec:
    """Return the spec of the features that a stage reads; stages of the same features form a group."""
    return spec.inputs["features"]


def sums_file(number: int) -> str:
    """Return the name of the file with the sums of a range."""
    return f"range-{number:06d}.npz"


def pack_sums(arrays: Mapping[str, Array]) -> bytes:
    """Return sums as a compressed archive, since most are 0 in a range; equal sums give equal bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def read_sums(stage: FinishedStage, number: int) -> dict[str, Array]:
    """Return the sums of a range from its file."""
    with np.load(io.BytesIO(stage.read_file(sums_file(number))), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
