"""How often a decomposed head is right, and agrees with the full one."""

import math

import numpy as np
import pytest

from tasks.decomposition import HeadScores


def test_worked_by_hand() -> None:
    logits = np.array([[2, 1, 0], [0, 0, 0], [0, 5, 4], [1, 2, 3]], dtype=np.float32)  # 0, 0 (a tie), 1, 2
    full = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 9]], dtype=np.float32)  # 0, 1, 2, 2
    scores = HeadScores(4 - 1)
    scores.update(logits, full, np.array([0, 0, 2, 2]))
    np.testing.assert_array_equal(scores.images, [2, 0, 2])
    np.testing.assert_array_equal(scores.correct, [2, 0, 1])
    np.testing.assert_array_equal(scores.agreeing, [1, 0, 1])
    assert (scores.accuracy, scores.agreement) == (0.75, 0.5)
    np.testing.assert_array_equal(scores.class_accuracies(), [1, np.nan, 0.5])


def test_chunks_add_up() -> None:
    rng = np.random.default_rng(0)
    logits, full, labels = rng.normal(size=(50, 4)), rng.normal(size=(50, 4)), rng.integers(0, 4, 50)
    whole, joined = HeadScores(4), HeadScores(4)
    whole.update(logits, full, labels)
    for rows in np.array_split(rng.permutation(50), 7):
        part = HeadScores(4)
        part.update(logits[rows], full[rows], labels[rows])
        joined.merge(HeadScores.of_state(part.state()))
    for name, array in whole.state().items():
        np.testing.assert_array_equal(joined.state()[name], array)
    assert whole.accuracy == float((logits.argmax(1) == labels).mean())
    assert whole.agreement == float((logits.argmax(1) == full.argmax(1)).mean())
    assert math.isnan(HeadScores(4).accuracy)
    assert math.isnan(HeadScores(4).agreement)


def test_what_does_not_fit_is_refused() -> None:
    scores, labels = HeadScores(3), np.zeros(2, dtype=np.int64)
    with pytest.raises(ValueError, match=r"logits: expected shape \(m, 3\), found \(2, 4\)"):
        scores.update(np.zeros((2, 4)), np.zeros((2, 3)), labels)
    with pytest.raises(ValueError, match=r"full: expected finite values .* found nan at row 0"):
        scores.update(np.zeros((2, 3)), np.full((2, 3), np.nan), labels)
    with pytest.raises(ValueError, match="full: expected 2 rows, one per row of the logits, found 3"):
        scores.update(np.zeros((2, 3)), np.zeros((3, 3)), labels)
    with pytest.raises(ValueError, match="merge: expected 3 classes, found 2"):
        scores.merge(HeadScores(2))
    assert not scores.images.any()
