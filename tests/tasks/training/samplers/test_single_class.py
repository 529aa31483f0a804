"""Single-class batches: whole classes in short last batches, ghosts in proportion."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.training.samplers.single_class import SingleClassBatches

LABELS = np.repeat(np.array([4, 5, 9], np.int64), [50, 30, 7])


def test_each_batch_has_one_class_and_only_its_last_is_short() -> None:
    batches = SingleClassBatches(LABELS, 1, size=8, ghosts=5)
    assert batches.per_epoch == 7 + 4 + 1
    sizes: dict[int, list[int]] = {}
    for batch in batches.epoch(0):
        assert set(LABELS[batch.examples].tolist()) == {batch.label}
        sizes.setdefault(batch.label, []).append(len(batch.examples))
    assert sizes == {4: [8] * 6 + [2], 5: [8] * 3 + [6], 9: [7]}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    share=st.floats(0, 1),
    seed=st.integers(0, 3),
)
def test_ghosts_are_stratified_and_drawn_without_repetition(counts: list[int], share: float, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int64)
    ghosts = round(share * len(labels))
    for batch in SingleClassBatches(labels, seed, size=10, ghosts=ghosts).epoch(0):
        assert len(batch.ghosts) == len(set(batch.ghosts.tolist())) == ghosts
        found = np.bincount(labels[batch.ghosts], minlength=len(counts))
        assert (np.abs(found - ghosts * np.array(counts) / len(labels)) < 1).all()


def test_ghosts_of_rare_classes_come_in_proportion_in_the_long_run() -> None:
    labels = np.repeat(np.arange(50, dtype=np.int64), 4)  # 10 ghosts of 50 classes: a fifth of one each
    batches = SingleClassBatches(labels, 0, size=4, ghosts=10)
    drawn = np.concatenate([batch.ghosts for epoch in range(40) for batch in batches.epoch(epoch)])
    by_class, by_sample = (np.bincount(x, minlength=n) for x, n in ((labels[drawn], 50), (drawn, 200)))
    assert by_class.sum() == 40 * 50 * 10
    assert (np.abs(by_class / 2000 - 0.2) < 4 * np.sqrt(0.2 * 0.8 / 2000)).all()  # 2000 draws of 0 or 1
    assert (np.abs(by_sample / 2000 - 0.05) < 5 * np.sqrt(0.05 * 0.95 / 2000)).all()


def test_classes_come_in_a_random_order_of_what_is_left() -> None:
    labels = np.repeat(np.array([0, 1], np.int64), [30, 10])
    batches = SingleClassBatches(labels, 0, size=10, ghosts=0)
    orders = Counter(tuple(batch.label for batch in batches.epoch(epoch)) for epoch in range(400))
    assert set(orders) == {(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)}  # all of 4 choose 1
    assert all(abs(count - 100) < 4 * np.sqrt(400 * 0.25 * 0.75) for count in orders.values())


def test_ghosts_differ_from_batch_to_batch() -> None:
    one, other = SingleClassBatches(LABELS, 0, size=40, ghosts=20).epoch(0)[:2]
    assert set(one.ghosts.tolist()) != set(other.ghosts.tolist())


def test_more_ghosts_than_samples_are_refused() -> None:
    with pytest.raises(ValueError, match=r"batches\.ghosts: expected at most the 87 samples, found 88"):
        SingleClassBatches(LABELS, 0, ghosts=88)
