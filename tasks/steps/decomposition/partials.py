"""What the stages over stored features share: ranges of positions as partitions, chunks of them, sums in files."""

import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.specs import StageSpec
from storage.stages import FinishedStage, open_finished
from storage.stores import Store

RANGE_VALUES = 64_000_000  # feature values of a partition: seconds of work
CHUNK_VALUES = 2_000_000  # feature values, or logits, in memory at once

Array = NDArray[Any]  # Any: integers and floats


def n_ranges(store: Store, features: StageSpec) -> int:
    """Return how many ranges the positions of a penultimate stage are cut into."""
    n, d = open_finished(store, features).layout.arrays["features"].shape
    return -(-n // rows_per_range(d))


def rows_per_range(n_features: int) -> int:
    """Return how many images make a partition: a whole number of the features' own partitions."""
    return max(1024, RANGE_VALUES // n_features // 1024 * 1024)


def rows_per_chunk(features: int, outputs: int) -> int:
    """Return how many images are in memory at once."""
    return max(1, CHUNK_VALUES // max(features, outputs))


def chunks(features: FinishedStage, number: int) -> Iterator[tuple[int, int]]:
    """Yield the first and past-the-end position of each chunk of a range."""
    n, d = features.layout.arrays["features"].shape
    size, end = rows_per_chunk(d, int(features.summary["outputs"])), min((number + 1) * rows_per_range(d), n)
    for start in range(number * rows_per_range(d), end, size):
        yield start, min(start + size, end)


def features_read(spec: StageSpec) -> StageSpec:
    """Return the features that a stage reads, and with which it is grouped."""
    return spec.inputs["features"]


def sums_file(number: int) -> str:
    """Return the name of the file with a range's sums."""
    return f"range-{number:06d}.npz"


def pack_sums(arrays: Mapping[str, Array]) -> bytes:
    """Return sums as a compressed archive: most classes have nothing in a range. The same sums, the same bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def read_sums(stage: FinishedStage, number: int) -> dict[str, Array]:
    """Return the sums of a range."""
    with np.load(io.BytesIO(stage.read_file(sums_file(number))), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
