"""Accuracy and agreement, by hand."""

import numpy as np
import pytest

from tasks.metrics.accuracy import agreement, top_k_accuracy
from tasks.metrics.checks import Floats, Integers

LOGITS = np.array([[3.0, 2.0, 1.0], [0.0, 5.0, 6.0], [1.0, 1.0, 1.0], [-2.0, -1.0, -3.0]], dtype=np.float32)


@pytest.mark.parametrize(
    ("labels", "k", "share"),
    [
        ([0, 2, 0, 1], 1, 1.0),
        ([1, 1, 1, 1], 1, 0.25),  # row 2: class 0 comes first among equals
        ([1, 1, 1, 1], 2, 1.0),
        ([2, 0, 2, 2], 2, 0.0),
        ([2, 0, 2, 2], 3, 1.0),
        ([2, 0, 2, 2], 5, 1.0),  # more than there are classes
    ],
)
def test_top_k_accuracy(labels: list[int], k: int, share: float) -> None:
    assert top_k_accuracy(LOGITS, np.array(labels), k) == share


def test_top_k_equals_a_stable_sort() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.integers(0, 5, size=(200, 12)).astype(np.float32), rng.integers(0, 12, size=200)
    for k in range(1, 13):
        best = np.argsort(-logits, axis=1, kind="stable")[:, :k]
        assert top_k_accuracy(logits, labels, k) == np.mean(
            [label in row for label, row in zip(labels, best, strict=True)]
        )


def test_agreement_counts_equal_predictions() -> None:
    other = np.array([[1.0, 0.0, 0.0], [0.0, 9.0, 6.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
    assert agreement(LOGITS, other) == 0.75  # rows 0, 2 (both class 0), 3


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((2, 3)), np.array([0]), r"labels: expected shape \(2,\)"),
        (np.zeros((2, 3)), np.array([0, 3]), r"labels: expected 0\.\.2, found 0\.\.3"),
        (np.zeros((2, 3)), np.array([-1, 1]), r"labels: expected 0\.\.2, found -1\.\.1"),
        (np.zeros((0, 3)), np.array([], dtype=int), "logits: expected shape"),
        (np.array([[np.nan, 1.0]]), np.array([0]), "logits: expected finite values, found NaN or inf in 1 of 1 rows"),
    ],
)
def test_bad_input_is_refused(logits: Floats, labels: Integers, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        top_k_accuracy(logits, labels)


def test_bad_kinds_and_numbers_are_refused() -> None:
    with pytest.raises(TypeError, match="labels: expected a NumPy array of integers, found float64"):
        top_k_accuracy(LOGITS, np.zeros(4))  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(ValueError, match="k: expected at least 1, found 0"):
        top_k_accuracy(LOGITS, np.zeros(4, dtype=int), 0)
    with pytest.raises(ValueError, match=r"expected one shape, found \(4, 3\) and \(3, 3\)"):
        agreement(LOGITS, LOGITS[:3])
