"""The cost of finished stages: time and peak memory, from their partition records."""

from collections.abc import Sequence
from dataclasses import dataclass

from storage.specs import StageSpec
from storage.stages import markers_of, open_finished
from storage.stores import Store


@dataclass(frozen=True)
class Cost:
    """The cost of a stage.

    Attributes
    ----------
    partitions : their number
    seconds : wall-clock time of all partitions; work shared with other stages counts by an even share
    peak_mb : peak memory of the largest partition's process in MB, 0 where the kernel does not give it
    """

    partitions: int
    seconds: float
    peak_mb: float


def costs_of(store: Store, specs: Sequence[StageSpec]) -> list[Cost]:
    """Return the costs of finished stages, in order; their records are read together."""
    records = markers_of([open_finished(store, spec) for spec in specs])
    metrics = [[record["numbers"] for record in partitions] for partitions in records]
    return [
        Cost(len(each), sum(one["seconds"] for one in each), max(one.get("peak_mb", 0.0) for one in each))
        for each in metrics
    ]
