"""How a trained network stands against always answering the most frequent class."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from storage.documents import Json
from storage.specs import StageSpec
from storage.stages import find_finished, open_finished
from storage.stores import Store
from tasks.steps.common.courses import training_of


def most_frequent(labels: NDArray[np.generic]) -> float:
    """Return the share of the most frequent label."""
    return float(np.unique(labels, return_counts=True)[1].max() / len(labels))


def training_standing(store: Store, training: StageSpec) -> Mapping[str, float]:
    """Return accuracy, chance (share of the most frequent class) and n_evaluate of a training's held-out split.

    The number of classes with training images is n_classes. An accuracy that is not measured, or not yet, is NaN.
    """
    train, splits = training_of(training), open_finished(store, training.inputs["data"]).summary["splits"]
    made = find_finished(store, training.path)  # a watched training has not ended
    found = None if made is None else made.summary.get("accuracy")
    counts = np.array(_counts(splits.get(train.evaluate)), np.int64)
    return {
        "accuracy": float("nan") if found is None else float(found),
        "chance": float(counts.max() / counts.sum()) if counts.sum() else float("nan"),
        "n_evaluate": float(counts.sum()),
        "n_classes": float(len(_counts(splits.get(train.split)))),
    }


def _counts(split: Mapping[str, Json] | None) -> list[int]:
    """Return the number of samples of each class that a split has."""
    return [] if split is None else [int(count) for count in split["counts"] if count]
