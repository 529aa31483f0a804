"""Accuracy of a decomposed head, and its agreement with the full head."""

from collections.abc import Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tasks.decomposition.checks import Doubles, Floats, check_classes, check_features


class HeadScores:
    """Correct and agreeing predictions by class, summed chunk by chunk and mergeable; holds three (C,) int64.

    Parameters
    ----------
    n_classes : C

    Attributes
    ----------
    images, correct, agreeing : (C,) int64 by true class; `agreeing` counts agreement with the full head
    """

    def __init__(self, n_classes: int) -> None:
        self.images, self.correct, self.agreeing = np.zeros((3, n_classes), dtype=np.int64)

    def update(self, logits: Floats, full: Floats, labels: NDArray[np.integer]) -> None:
        """Add the predictions for some images.

        Parameters
        ----------
        logits : (m, C) float, logits of the measured head
        full : (m, C) float, logits of the full head; may be the same array
        labels : (m,) integer, 0..C-1
        """
        n_classes = len(self.images)
        predicted = check_features(logits, n_classes, name="logits").argmax(axis=1)  # equal logits: the lower class
        usual = check_features(full, n_classes, name="full").argmax(axis=1)
        true = check_classes("labels", labels, len(predicted), n_classes)
        if len(usual) != len(predicted):
            raise ValueError(f"full: expected {len(predicted)} rows, one per row of the logits, found {len(usual)}")
        self.images += np.bincount(true, minlength=n_classes)
        self.correct += np.bincount(true[predicted == true], minlength=n_classes)
        self.agreeing += np.bincount(true[predicted == usual], minlength=n_classes)

    def merge(self, other: Self) -> Self:
        """Add the images of another instance, which is not changed. Returns this instance."""
        if len(self.images) != len(other.images):
            raise ValueError(f"merge: expected {len(self.images)} classes, found {len(other.images)}")
        self.images += other.images
        self.correct += other.correct
        self.agreeing += other.agreeing
        return self

    @property
    def accuracy(self) -> float:
        """Return the share of all images that are classified correctly; NaN without images."""
        return _share(self.correct, self.images)

    @property
    def agreement(self) -> float:
        """Return the share of all images with the full head's prediction; NaN without images."""
        return _share(self.agreeing, self.images)

    def class_accuracies(self) -> Doubles:
        """Return the share of each class's images that are classified correctly, (C,); NaN without images."""
        empty = np.full(len(self.images), np.nan)
        shares: Doubles = np.divide(self.correct, self.images, out=empty, where=self.images > 0)
        return shares

    def state(self) -> dict[str, NDArray[np.int64]]:
        """Return the counts by name."""
        return {"images": self.images, "correct": self.correct, "agreeing": self.agreeing}

    @classmethod
    def of_state(cls, state: Mapping[str, NDArray[np.int64]]) -> Self:
        """Build an instance from its state."""
        scores = cls(len(state["images"]))
        for name in ("images", "correct", "agreeing"):
            setattr(scores, name, np.array(state[name], dtype=np.int64))
        return scores


def _share(part: NDArray[np.int64], whole: NDArray[np.int64]) -> float:
    """Return the quotient of two sums."""
    return int(part.sum()) / int(whole.sum()) if whole.any() else float("nan")
