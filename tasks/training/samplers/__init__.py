"""Samplers by name: `SAMPLERS[kind](labels, seed, **settings)` for the labels (n,) int64 of a training set.

They return objects of the protocol `tasks.training.batches.Batches`.
"""

from collections.abc import Callable

from tasks.training.batches import Batches
from tasks.training.samplers.shuffled import ShuffledBatches
from tasks.training.samplers.single_class import SingleClassBatches
from tasks.training.samplers.single_example import SingleExampleBatches

SAMPLERS: dict[str, Callable[..., Batches]] = {
    "shuffled": ShuffledBatches,
    "single-class": SingleClassBatches,
    "single-example": SingleExampleBatches,
}
