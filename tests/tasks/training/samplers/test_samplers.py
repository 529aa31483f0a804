"""What every sampler promises: each sample once an epoch, and any batch computable alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.training.batches import Batches, Positions
from tasks.training.samplers import SAMPLERS
from tasks.training.samplers.shuffled import ShuffledBatches

LABELS = np.repeat(np.array([2, 3, 7], np.int64), [9, 1, 5])
SETTINGS: dict[str, dict[str, int]] = {"shuffled": {"size": 4}, "single-class": {"size": 4, "ghosts": 6}}
GHOSTLESS = {"single-class": {"ghosts": 0}}  # for sets of any size


def make(kind: str, labels: Positions = LABELS, seed: int = 3) -> Batches:
    """Return a sampler with small settings."""
    return SAMPLERS[kind](labels, seed, **SETTINGS.get(kind, {}))


@pytest.mark.parametrize("kind", SAMPLERS)
@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    counts=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 5),
    shuffle=st.booleans(),
)
def test_every_sample_is_an_example_once_an_epoch(
    kind: str, counts: list[int], seed: int, epoch: int, shuffle: bool
) -> None:
    labels = np.repeat(np.arange(len(counts), dtype=np.int64) * 3, counts)
    if shuffle:
        labels = np.random.default_rng(seed).permutation(labels)
    sampler = SAMPLERS[kind](labels, seed, **{**SETTINGS.get(kind, {}), **GHOSTLESS.get(kind, {})})
    found = sampler.epoch(epoch)
    assert len(found) == sampler.per_epoch
    assert all(batch.examples.dtype == batch.ghosts.dtype == np.int64 for batch in found)
    np.testing.assert_array_equal(np.sort(np.concatenate([batch.examples for batch in found])), np.arange(len(labels)))
    for batch in found:
        classes = set(labels[batch.examples].tolist())
        assert batch.label == (classes.pop() if len(classes) == 1 else -1)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_any_batch_alone_is_that_of_its_epoch(kind: str) -> None:
    whole = make(kind)
    for epoch in (4, 0):
        for index, batch in enumerate(whole.epoch(epoch)):
            alone = make(kind).batch(epoch * whole.per_epoch + index)
            np.testing.assert_array_equal(alone.examples, batch.examples)
            np.testing.assert_array_equal(alone.ghosts, batch.ghosts)
            assert alone.label == batch.label


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize(("seed", "epoch"), [(4, 0), (3, 1)])
def test_seed_and_epoch_change_the_order(kind: str, seed: int, epoch: int) -> None:
    first, other = make(kind).epoch(0), make(kind, seed=seed).epoch(epoch)
    assert [b.examples.tolist() for b in first] != [b.examples.tolist() for b in other]


@pytest.mark.parametrize("kind", SAMPLERS)
def test_labels_are_left_as_they_are(kind: str) -> None:
    labels = LABELS.copy()
    make(kind, labels).epoch(2)
    np.testing.assert_array_equal(labels, LABELS)


def test_shuffled_batches_are_one_permutation_cut_into_pieces() -> None:
    found = ShuffledBatches(np.zeros(23, np.int64), 5, 7).epoch(2)
    assert [len(batch.examples) for batch in found] == [7, 7, 7, 2]
    order = np.random.default_rng([5, 2]).permutation(23)
    np.testing.assert_array_equal(np.concatenate([batch.examples for batch in found]), order)


def test_single_examples_have_their_own_labels() -> None:
    found = make("single-example").epoch(1)
    assert [batch.label for batch in found] == [LABELS[batch.examples[0]] for batch in found]
    assert {len(batch.examples) for batch in found} == {1}


@pytest.mark.parametrize("kind", ["shuffled", "single-class"])
def test_a_batch_of_nothing_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=r"batches\.size: expected at least 1, found 0"):
        SAMPLERS[kind](LABELS, 0, size=0)
