"""Shuffled batches: functions of (seed, epoch) without state."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.training.batches import ShuffledBatches


@settings(max_examples=40, deadline=None, derandomize=True)
@given(n=st.integers(1, 60), size=st.integers(1, 70), seed=st.integers(0, 5), epoch=st.integers(0, 5))
def test_every_epoch_has_each_sample_once(n: int, size: int, seed: int, epoch: int) -> None:
    batches = ShuffledBatches(n, size, seed)
    found = batches.epoch(epoch)
    assert len(found) == batches.per_epoch
    assert all(len(batch) == size for batch in found[:-1])
    assert 1 <= len(found[-1]) <= size
    np.testing.assert_array_equal(np.sort(np.concatenate(found)), np.arange(n))


def test_any_epoch_is_the_same_alone_and_in_a_row() -> None:
    one, other = ShuffledBatches(20, 6, 3), ShuffledBatches(20, 6, 3)
    for epoch in range(3):
        one.epoch(epoch)
    for a, b in zip(one.epoch(3), other.epoch(3), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("seed", "epoch"), [(1, 0), (0, 1)])
def test_seed_and_epoch_change_the_order(seed: int, epoch: int) -> None:
    first = np.concatenate(ShuffledBatches(50, 10, 0).epoch(0))
    assert (first != np.concatenate(ShuffledBatches(50, 10, seed).epoch(epoch))).any()
